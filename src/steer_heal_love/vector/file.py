"""A steering vector's file read back, whoever wrote it.

In: a safetensors file. Out: directions by layer, and what they say of themselves. Everything that is wrong is said in
one `UserError`: a header that says something else than how our vectors are applied, metadata that is no table, layers,
widths and values that no vector of ours has.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.shown import shown
from steer_heal_love.ground.untrusted import json_text, known, refuse
from steer_heal_love.ground.untrusted.directions import directions
from steer_heal_love.ground.untrusted.tensors import tensors


def read(path: Path, says: Mapping[str, str]) -> tuple[dict[int, Float[Tensor, " d"]], dict[str, Any]]:
    """Directions and metadata of the vector at `path`, whose header must say what `says` says."""
    name = f"{path}: no steering vector there"
    found, header = tensors(path, name)
    if header.get("format", "").rpartition(".")[0] != says["format"].rpartition(".")[0]:
        raise UserError(
            f"{shown(path)}: safetensors, but not a steering vector of this tool: {shown(header)[:200]}"
        )
    wrong = [
        f"{key}: expected {value!r}, found {header.get(key, 'nothing')!r:.60}"
        for key, value in says.items()
        if header.get(key) != value
    ]
    wrong += known(header, [*says, "norm", "meta"])
    meta, mistakes = metadata(header.get("meta"), path)
    refuse(str(path), wrong + mistakes)
    return directions(found, str(path), prefix="layer", first=0), meta


def metadata(text: str | None, path: Path) -> tuple[dict[str, Any], list[str]]:
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
