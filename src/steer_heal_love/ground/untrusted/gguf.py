"""GGUF from other hands, as far as control vectors need it: little-endian, version 2 or 3, F32 and F16.

In: a file. Out: its metadata and its tensors. Every count and length is checked against what is left of the file before
it is believed, so that a damaged header costs nothing. Source of the format: the ggml repository's docs/gguf.md.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.shown import shown
from steer_heal_love.ground.untrusted.mistakes import refuse
from steer_heal_love.ground.untrusted.plain import MEGABYTE, read_bytes
from steer_heal_love.nouns import Json

LARGEST = 256 * MEGABYTE
ENTRIES = 65_536
"""keys, and tensors, at most"""
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""struct's letter by GGUF's number of a value's type"""
TEXT, LIST = 8, 9
DTYPES = {0: np.dtype("<f4"), 1: np.dtype("<f2")}
"""what is read, by GGUF's number of a tensor's type: F32 and F16"""
QUANTISED = {
    2: "Q4_0",
    3: "Q4_1",
    6: "Q5_0",
    7: "Q5_1",
    8: "Q8_0",
    9: "Q8_1",
    10: "Q2_K",
    11: "Q3_K",
    12: "Q4_K",
    13: "Q5_K",
    14: "Q6_K",
    15: "Q8_K",
    30: "BF16",
}


@dataclass
class Contents:
    """A GGUF file's metadata by key, and its tensors by name, outermost dimension first as numpy has it."""

    fields: Json = field(default_factory=dict)
    tensors: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class Reader:
    """The bytes of a file, read from `at` on; nothing is read past the end."""

    raw: bytes
    name: str
    at: int = 0

    def fail(self, what: str) -> UserError:
        return UserError(f"{shown(self.name)}: no GGUF file there: {shown(what)}.")

    def take(self, n: int) -> bytes:
        if n > len(self.raw) - self.at:
            raise self.fail(f"{n} bytes expected at byte {self.at} of {len(self.raw)}; cut short or damaged")
        self.at += n
        return self.raw[self.at - n : self.at]

    def scalar(self, letter: str) -> Any:
        return struct.unpack(f"<{letter}", self.take(struct.calcsize(f"<{letter}")))[0]

    def count(self, most: int, what: str) -> int:
        found = self.scalar("Q")
        if found > most:
            raise self.fail(f"{found} {what}, at most {most} are read")
        return int(found)

    def text(self) -> str:
        at, raw = self.at, self.take(self.count(MEGABYTE, "bytes in a text"))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as e:
            raise self.fail(f"the text at byte {at} is not UTF-8") from e

    def value(self) -> Any:
        """A metadata value; lists are skipped, since no control vector needs one."""
        kind = self.scalar("I")
        if kind != LIST:
            return self.one(kind)
        inner, n = self.scalar("I"), self.count(len(self.raw), "items in a list")
        if inner in SCALARS:
            self.take(n * struct.calcsize(f"<{SCALARS[inner]}"))
        elif inner == TEXT:
            for _ in range(n):
                self.text()
        else:
            raise self.fail(f"a list of values of type {inner}")
        return None

    def one(self, kind: int) -> Any:
        if kind == TEXT:
            return self.text()
        if kind not in SCALARS:
            raise self.fail(f"a value of type {kind} at byte {self.at}")
        return self.scalar(SCALARS[kind])


def gguf(path: Path, name: str) -> Contents:
    """Metadata and tensors of a GGUF file of at most 256 MB. `name` is what messages call it.

    Raises `UserError` for what is no GGUF file, for tensors of other types than F32 and F16 (all of them named), and
    for values that are not finite.
    """
    reader = Reader(read_bytes(path, f"{name}: no GGUF file there", most=LARGEST), name)
    if len(reader.raw) < 4 or reader.take(4) != b"GGUF":
        raise reader.fail("its first four bytes are not GGUF" if reader.raw else "it is empty")
    version = reader.scalar("I")
    if version not in (2, 3):
        raise reader.fail(f"version {version}; 2 and 3 are read, little-endian")
    n_tensors, n_fields = reader.count(ENTRIES, "tensors"), reader.count(ENTRIES, "keys")
    out = Contents()
    for _ in range(n_fields):
        key = reader.text()
        if key in out.fields:
            raise reader.fail(f"the key {key!r:.100} is there twice")
        out.fields[key] = reader.value()
    infos = [info(reader) for _ in range(n_tensors)]
    start = aligned(reader, out.fields.get("general.alignment", 32))
    wrong = []
    if any(n > len(reader.raw) for _, shape, _, _ in infos for n in shape):
        raise reader.fail("a tensor is larger than the file")
    size = sum(math.prod(shape) * DTYPES[kind].itemsize for _, shape, kind, _ in infos if kind in DTYPES)
    if size > len(reader.raw) - start:
        raise reader.fail("its tensors are larger together than the file, so they overlap")
    for tensor, shape, kind, offset in infos:
        if tensor in out.tensors:
            wrong.append(f"{tensor!r:.100}: is there twice")
        elif kind not in DTYPES:
            wrong.append(
                f"{tensor!r:.100}: values of type {QUANTISED.get(kind, kind)}; only F32 and F16 are read"
            )
        else:
            out.tensors[tensor] = values(reader, start + offset, shape, DTYPES[kind])
            if not np.isfinite(out.tensors[tensor]).all():
                wrong.append(f"{tensor!r:.100}: values that are not finite")
    refuse(name, wrong)
    return out


def info(reader: Reader) -> tuple[str, tuple[int, ...], int, int]:
    """A tensor's name, shape (outermost first), number of its type, and offset in the data."""
    name, dims = reader.text(), reader.scalar("I")
    if dims > 4:
        raise reader.fail(f"{name!r:.100} has {dims} dimensions, at most 4 are known")
    shape = tuple(int(reader.scalar("Q")) for _ in range(dims))[::-1]
    return name, shape, reader.scalar("I"), reader.scalar("Q")


def aligned(reader: Reader, to: Any) -> int:
    """Where the data begins: the next multiple of `to`."""
    if type(to) is not int or not 1 <= to <= 65_536:
        raise reader.fail(f"general.alignment is {to!r:.60}")
    return -(-reader.at // to) * to


def values(reader: Reader, at: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A tensor's values in fp32."""
    reader.at = min(at, len(reader.raw))
    raw = reader.take(math.prod(shape) * dtype.itemsize)
    return np.frombuffer(raw, dtype).reshape(shape).astype(np.float32)
