"""A steering vector's file read back, whoever wrote it.

In: a safetensors file. Out: directions by layer, and what they say of themselves. Everything that is wrong is said in
one `UserError`: a header that says something else than how our vectors are applied, metadata that is no table, layers,
widths and values that no vector of ours has.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from steer_heal_love.ground import operations
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.places import Directions
from steer_heal_love.ground.shown import shown
from steer_heal_love.ground.untrusted import json_text, known, refuse
from steer_heal_love.ground.untrusted.directions import directions
from steer_heal_love.ground.untrusted.tensors import tensors
from steer_heal_love.nouns import Json

MODULE = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
"""a module's name inside a layer"""


def read(
    path: Path, says: Mapping[str, str], known_operations: Collection[str], hooked: str
) -> tuple[Directions, Json]:
    """Directions and metadata of the vector at `path`, whose header must say what `says` says, but for an operation among
    `known_operations` and a hook point that is `hooked` and a module's name."""
    name = f"{path}: no steering vector there"
    found, header = tensors(path, name)
    if header.get("format", "").rpartition(".")[0] != says["format"].rpartition(".")[0]:
        raise UserError(
            f"{shown(path)}: safetensors, but not a steering vector of this tool: {shown(header)[:200]}"
        )
    operation, point = header.get("operation", ""), header.get("hook_point", "")
    hook = point.removeprefix(hooked) if point.startswith(hooked) else ""
    fine = {"operation": operation in known_operations, "hook_point": bool(MODULE.fullmatch(hook))}
    wrong = [
        f"{key}: expected {value!r}{more(key, known_operations, hooked)}, found {header.get(key, 'nothing')!r:.60}"
        for key, value in says.items()
        if header.get(key) != value and not fine.get(key)
    ]
    wrong += known(header, [*says, "norm", "meta"])
    meta, mistakes = metadata(header.get("meta"), path)
    refuse(str(path), wrong + mistakes)
    rows = operations.rows.get(operation, 1)
    loaded = directions(found, str(path), prefix="layer", first=0, rows=rows)
    return Directions(loaded, hook=hook, operation=operation if rows > 1 else ""), meta


def more(key: str, known_operations: Collection[str], hooked: str) -> str:
    """What else a header may say under this key."""
    others = ", ".join(repr(o) for o in known_operations)
    also = {"operation": f" (or one of {others})", "hook_point": f" (or {hooked!r} and a module's name)"}
    return also.get(key, "")


def metadata(text: str | None, path: Path) -> tuple[Json, list[str]]:
    """What a vector says of itself, and what is wrong with that."""
    if text is None:
        return {}, ["meta: missing"]
    try:
        found = json_text(text, "meta")
    except UserError as e:
        return {}, [str(e)]
    if not isinstance(found.data, dict):
        return {}, [f"meta: expected a JSON object, found {type(found.data).__name__}"]
    return found.data, [f"meta: {m}" for m in found.all([])]
