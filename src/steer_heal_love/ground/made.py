"""What a run's log says was made, by hash, beside what lies in its folder.

Every step logs `done` with the hash of each file that it wrote, and what is derived from all steps is logged as
`wrote`. A file that differs from its hash was changed by other hands, or damaged; one that is gone is made again. A
log from before hashes were kept, or a lost one, vouches for nothing: then a file counts as it is.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError

from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.shown import shown
from steer_heal_love.nouns import Json

T = TypeVar("T")
BESIDE = {
    "healing.json": ("adapter/adapter_config.json", "adapter/adapter_model.safetensors"),
    "transfer.json": ("shift.safetensors",),
}
"""what a step leaves beside its own file, and before it: the step is done when all are there"""
DERIVED = (
    "adapter/adapter_config.json",
    "adapter/adapter_model.safetensors",
    "adapter/steer_heal_love.json",
    "base/bounds.json",
    "base/checks.json",
    "summary.json",
    "report.html",
    "trajectory.png",
)
"""what is worked out of the steps' files, and written anew by every sitting"""
PAGES = ("report.html", "trajectory.png")
"""derived files that nothing reads"""
RESULTS = tuple(name for name in DERIVED if name not in PAGES)
"""the others"""
BLOCK = 1 << 23
"""bytes of a file that are hashed at once"""
PROMPTED = 6
"""files named in a message; the rest are counted"""
UNREADABLE = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    RecursionError,
    OSError,
    SafetensorError,
)
"""what a loader meets in a file that no run wrote"""

Hashes = dict[str, str]


def digest(path: Path) -> str:
    """The first 16 hex digits of the file's SHA-256. Read in blocks that are large enough for a thread beside this one, which
    waits for Python after each of them."""
    found = hashlib.sha256()
    with path.open("rb", buffering=0) as f:
        while block := f.read(BLOCK):
            found.update(block)
    return found.hexdigest()[:16]


def parts(path: Path) -> list[Path]:
    """The files of the step whose own file is `path`."""
    return [path, *(path.parent / other for other in BESIDE.get(path.name, ()))]


def whole(path: Path) -> bool:
    """Whether every file of the step is there."""
    return all(p.is_file() for p in parts(path))


def hashes(root: Path, paths: list[Path]) -> Hashes:
    """By name in `root`, for those that are there."""
    return {str(p.relative_to(root)): digest(p) for p in paths if p.is_file()}


def named(value: Any) -> Hashes:
    """Hashes as a log or manifest holds them; nothing of what has another form, or leads out of the folder."""
    if not isinstance(value, dict):
        return {}
    texts = {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, str)}
    return {k: v for k, v in texts.items() if k and not Path(k).is_absolute() and ".." not in Path(k).parts}


def differing(root: Path, found: Hashes) -> list[str]:
    """The files that are there and are not as they were; none where one is gone, since that step is done again."""
    if not all((root / name).is_file() for name in found):
        return []
    return [name for name, was in found.items() if digest(root / name) != was]


def seconds(event: Json) -> float:
    """What a `done` event says that its step took; 0 where a kill came before the log was written."""
    value = event.get("seconds")
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return 0.0


def read(
    load: Callable[[Path], T], path: Path, remedy: str = "Delete it, and `shl run --resume` makes it again."
) -> T:
    """What lies at `path`. Raises `UserError` with the `remedy` where it can't be what a run wrote."""
    try:
        return load(path)
    except UNREADABLE as e:
        raise UserError(
            f"{shown(path)}: damaged, or not what a run writes ({type(e).__name__}: {shown(e)[:200]}). {remedy}"
        ) from e


def listed(names: list[str]) -> str:
    """A few names and how many more there are."""
    more = f" and {len(names) - PROMPTED} more" if len(names) > PROMPTED else ""
    return ", ".join(shown(n) for n in names[:PROMPTED]) + more
