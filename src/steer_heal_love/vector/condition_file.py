"""A condition's file, written and read back, whoever wrote it.

In and out: a `Condition` and what it says of itself. Safetensors with the tensors `direction` and `mean`, [d] each, and a header
that states the format's number, the operation, the layer and the threshold. Identity: what was saved is loaded, to the bit.
Refused, all mistakes at once: another format, operation or numbering of layers, a layer or a threshold that is no number, other
tensors, widths that differ, values that are not finite, a direction of length 0.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import torch as safetensors
from torch import Tensor

from steer_heal_love.ground.condition import Condition
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.records import in_order, whole
from steer_heal_love.ground.shown import shown
from steer_heal_love.ground.untrusted import known, refuse
from steer_heal_love.ground.untrusted.directions import DEEPEST
from steer_heal_love.ground.untrusted.tensors import header, tensors
from steer_heal_love.vector.file import metadata

FAMILY = "steer-heal-love.condition"
SAYS = {
    "format": f"{FAMILY}.1",
    "layer_numbering": "from 0",
    "hook_point": "decoder layer output",
    "position": "last token of the prompt",
}
"""what a condition's file says of how to apply it; another value is another thing"""
OPERATIONS = {
    "steer where the cosine is above the threshold": False,
    "steer where the cosine is not above the threshold": True,
}
"""what its operation may be, and whether that is a condition that holds below"""
TENSORS = ("direction", "mean")


def is_condition(path: Path) -> bool:
    """Whether a safetensors file says that it is a condition, of whatever number. Raises `UserError` for no safetensors."""
    told = header(path, f"{path}: no steering vector or condition there").metadata
    return told.get("format", "").rpartition(".")[0] == FAMILY


def save(condition: Condition, path: Path, meta: Mapping[str, Any] | None = None) -> None:
    """Write a condition with what it says of itself."""
    said = next(text for text, below in OPERATIONS.items() if below is condition.below)
    told = SAYS | {
        "operation": said,
        "layer": str(condition.layer),
        "threshold": repr(float(condition.threshold)),
        "meta": json.dumps(dict(meta or {})),
    }
    held = {name: getattr(condition, name).detach().float().cpu().contiguous() for name in TENSORS}
    with whole(path) as scratch:
        scratch.write_bytes(in_order(safetensors.save(held, metadata=told)))


def read(path: Path) -> tuple[Condition, dict[str, Any]]:
    """The condition at `path` and what it says of itself. Raises `UserError` with everything that is wrong."""
    found, told = tensors(path, f"{path}: no condition there")
    if told.get("format", "").rpartition(".")[0] != FAMILY:
        raise UserError(
            f"{shown(path)}: safetensors, but not a condition of this tool; `shl vector condition` writes one: {shown(told)[:200]}"
        )
    wrong = [
        f"{key}: expected {value!r}, found {told.get(key, 'nothing')!r:.60}"
        for key, value in SAYS.items()
        if told.get(key) != value
    ]
    operation = told.get("operation", "nothing")
    if operation not in OPERATIONS:
        wrong.append(f"operation: expected {' or '.join(map(repr, OPERATIONS))}, found {operation!r:.60}")
    wrong += known(told, [*SAYS, "operation", "layer", "threshold", "meta"])
    layer, threshold = told.get("layer", ""), number(told.get("threshold", ""))
    if not re.fullmatch(r"0|[1-9][0-9]{0,8}", layer) or int(layer) >= DEEPEST:
        wrong.append(f"layer: expected a whole number from 0 to {DEEPEST - 1}, found {layer!r:.60}")
    if not math.isfinite(threshold):
        wrong.append(f"threshold: expected a number, found {told.get('threshold', 'nothing')!r:.60}")
    meta, mistakes = metadata(told.get("meta"), path)
    refuse(str(path), wrong + mistakes + shapes(found))
    return Condition(int(layer), found["direction"], found["mean"], threshold, OPERATIONS[operation]), meta


def number(text: str) -> float:
    """A decimal number; NaN for anything else."""
    return (
        float(text) if re.fullmatch(r"-?[0-9]{1,20}(\.[0-9]{1,30})?(e[-+]?[0-9]{1,3})?", text) else math.nan
    )


def shapes(found: Mapping[str, Tensor]) -> list[str]:
    """What is wrong with the tensors; their values are finite."""
    wrong = known(found, TENSORS) + [f"{name}: missing" for name in TENSORS if name not in found]
    held = {name: found[name] for name in TENSORS if name in found}
    wrong += [
        f"{name}: shape {tuple(t.shape)}; expected one vector"
        for name, t in held.items()
        if t.ndim != 1 or not t.numel()
    ]
    if len({t.shape for t in held.values()}) > 1:
        wrong.append("widths differ: " + ", ".join(f"{n} has {tuple(t.shape)}" for n, t in held.items()))
    if "direction" in held and not torch.any(held["direction"] != 0):
        wrong.append("direction: of length 0, which points nowhere")
    return wrong
