"""Safetensors from other hands: the header is read and checked before anything is mapped.

In: a file. Out: its tensors, in fp32, and its metadata. Refused, all mistakes at once: a header that is no JSON object,
metadata that is no flat table of texts, shapes and places that don't fit each other or the file, types other than
floating point, values that are not finite. Source of the format: the safetensors documentation.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.shown import shown
from steer_heal_love.ground.untrusted.mistakes import refuse, whole_number
from steer_heal_love.ground.untrusted.plain import MEGABYTE, read_bytes
from steer_heal_love.ground.untrusted.tables import Found, json_text

HEADER = 16 * MEGABYTE
"""bytes of a header, at most"""
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""bytes a value, by the types that are read"""


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of itself."""

    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str]


def tensors(path: Path, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every tensor of a safetensors file in fp32, by name, and the file's metadata. `name` is what messages call it.

    Raises `UserError` with everything that is wrong; nothing is mapped before the header is found sound.
    """
    told = header(path, name)
    try:
        loaded = load_file(str(path))
    except (OSError, SafetensorError) as e:
        raise UserError(f"{shown(name)}: no safetensors: {shown(e)}") from e
    out = {key: t.float() for key, t in loaded.items()}
    refuse(
        name, [f"{k!r}: values that are not finite" for k, t in out.items() if not torch.isfinite(t).all()]
    )
    return out, told.metadata


def header(path: Path, name: str) -> Header:
    """The checked header of a safetensors file. Raises `UserError` with everything that is wrong with it."""
    start = read_start(path, name)
    size, length = path.stat().st_size, struct.unpack("<Q", start[:8])[0]
    if length > min(HEADER, size - 8):
        raise UserError(
            f"{shown(name)}: no safetensors: a header of {length} bytes in a file of {size}; cut short, or another format."
        )
    with path.open("rb") as f:
        raw = f.read(8 + length)[8:]
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as e:
        raise UserError(f"{shown(name)}: no safetensors: its header is not UTF-8.") from e
    found = json_text(text, f"{name}: no safetensors: its header")
    if not isinstance(found.data, dict):
        raise UserError(f"{shown(name)}: no safetensors: its header is no JSON object.")
    return checked(found, size - 8 - length, name)


def read_start(path: Path, name: str) -> bytes:
    """The first eight bytes. Raises `UserError` where there are none."""
    try:
        if not path.is_file():
            read_bytes(path, name, most=0)  # says what is there instead
        with path.open("rb") as f:
            start = f.read(8)
    except OSError as e:
        raise UserError(f"{shown(name)}: {e.strerror or e}.") from e
    if len(start) < 8:
        raise UserError(f"{shown(name)}: no safetensors: {len(start)} bytes; empty or cut short.")
    return start


def checked(found: Found, size: int, name: str) -> Header:
    """The header, once every entry fits its shape and the `size` bytes of data."""
    entries = dict(found.data)
    metadata = entries.pop("__metadata__", {})
    wrong = list(found.all([]))
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        wrong.append("__metadata__: expected a flat table of texts")
    spans = []
    for key, entry in entries.items():
        if what := entry_mistake(entry, size):
            wrong.append(f"{key!r}: {what}")
        else:
            spans.append((*entry["data_offsets"], key))
    end = 0
    for begin, stop, key in sorted(spans):
        if begin != end:
            wrong.append(f"{key!r}: begins at byte {begin} of the data, expected {end}")
        end = stop
    if not wrong and end != size:
        wrong.append(f"{size} bytes of data, expected {end}: cut short, or something is appended")
    refuse(name, wrong)
    return Header({k: tuple(e["shape"]) for k, e in entries.items()}, metadata)


def entry_mistake(entry: Any, size: int) -> str:
    """What is wrong with one tensor's entry; nothing where it is sound."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        return "expected dtype, shape and data_offsets"
    dtype, shape, place = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in SIZES:
        return f"values of type {dtype!r:.40}; expected {', '.join(SIZES)}"
    if not counts(shape) or len(shape) > 8:
        return f"shape {shape!r:.60}; expected at most 8 whole numbers"
    if not counts(place) or len(place) != 2 or not place[0] <= place[1] <= size:
        return f"data_offsets {place!r:.60}; expected a part of {size} bytes"
    if place[1] - place[0] != math.prod(shape) * SIZES[dtype]:
        return f"{place[1] - place[0]} bytes for shape {shape} of {dtype}"
    return ""


def counts(value: Any) -> bool:
    """Whether this is a list of whole numbers from 0."""
    return isinstance(value, list) and all(whole_number(v) and v >= 0 for v in value)
