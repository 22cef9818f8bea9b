"""Steering vectors of other tools, read as one of ours: operation, layer numbering and norm are stated, never guessed.

    stacked   one tensor [l, d], a row a layer, as persona_vectors saves them (there row 0 is the embedding: base 1)
    by layer  one tensor [d] a layer, whose name ends in the layer's number: `12`, `layer.12`, `model.layers.12`

In: a safetensors file, and what its numbers mean. `base` 0: number N is the output of decoder layer N. `base` 1: number N is
the N-th hidden state, the embedding being the 0-th, so that N is the output of layer N − 1. Out: directions by layer from 0.
Identity: with base 0 and raw norms every number is kept. GGUF control vectors are read by `bake.llama_cpp`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.shown import shown
from steer_heal_love.ground.untrusted import refuse
from steer_heal_love.ground.untrusted.directions import directions
from steer_heal_love.ground.untrusted.tensors import tensors

PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")
NUMBERED = re.compile(r"(?:.*\D)?(\d{1,9})")
Directions = dict[int, Float[Tensor, " d"]]


def unpickled(file: Path) -> None:
    """Raise `UserError` for a file of a kind that can run code when it is read."""
    if file.suffix.lower() in PICKLES:
        raise UserError(
            f"{shown(file)}: a pickle can run code while it is read, so it is not. Where you trust it, read it yourself with "
            "torch's weights_only=True and save its tensor with safetensors."
        )


def foreign(file: Path, *, base: Literal[0, 1]) -> Directions:
    """The directions of a safetensors file, stacked or by layer. Raises `UserError` with everything that is wrong."""
    unpickled(file)
    found, _ = tensors(file, str(file))
    return (
        stacked(found, file, base)
        if any(t.ndim == 2 for t in found.values())
        else by_layer(found, file, base)
    )


def stacked(found: Mapping[str, Tensor], file: Path, base: int) -> Directions:
    """A row a layer; with base 1 the first row is the embedding's, which no layer gives out, and is left out."""
    if len(found) != 1:
        refuse(str(file), [f"{len(found)} tensors; expected one [layers, width], or one [width] a layer"])
    (rows,) = found.values()
    return directions(
        {f"layer.{i}": row for i, row in enumerate(rows[base:])}, str(file), prefix="layer", first=0
    )


def by_layer(found: Mapping[str, Tensor], file: Path, base: int) -> Directions:
    """A tensor a layer, by the number at the end of its name."""
    named: dict[str, Tensor] = {}
    wrong = []
    for name, t in found.items():
        number = NUMBERED.fullmatch(name)
        layer = int(number[1]) - base if number else -1
        if layer < 0:
            wrong.append(f"{name!r:.100}: expected a name that ends in a layer's number, from {base}")
        elif f"layer.{layer}" in named:
            wrong.append(f"{name!r:.100}: layer {layer} a second time")
        else:
            named[f"layer.{layer}"] = t
    refuse(str(file), wrong)
    return directions(named, str(file), prefix="layer", first=0)


def adjusted(found: Directions, *, norm: Literal["raw", "unit"], at: Collection[int] = ()) -> Directions:
    """Only the layers `at` (all where none is named), with raw norms or each of length 1.

    Raises `UserError` for a layer that isn't there, and for a direction of length 0 that can't be scaled.
    """
    if missing := sorted(set(at) - set(found)):
        raise UserError(f"no direction for layers {missing}; there is one for {sorted(found)}.")
    chosen = {i: v for i, v in found.items() if not at or i in at}
    if norm == "raw":
        return chosen
    if nothing := [i for i, v in chosen.items() if not v.norm() > 0]:
        raise UserError(f"layers {nothing}: directions of length 0 can't be given length 1.")
    return {i: v / v.norm() for i, v in chosen.items()}
