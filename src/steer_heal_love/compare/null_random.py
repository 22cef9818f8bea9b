"""Null: a random direction with the vector's norm in every layer, healed exactly as the healed round is."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from steer_heal_love.compare.alike import alike
from steer_heal_love.compare.bench import Bench
from steer_heal_love.compare.method import Cell, method
from steer_heal_love.compare.scaled import KNOB
from steer_heal_love.ground import purposes
from steer_heal_love.vector import Vector


@method("null_random", knob=KNOB, kind="healed", null=True)
def null_random(bench: Bench) -> Iterator[Cell]:
    yield from alike(bench, lambda r: random_like(bench.vector(), r.seed(purposes.RANDOM_VECTOR)))


def random_like(v: Vector, seed: int) -> Vector:
    """A Gaussian direction a layer, of the norm that `v` has there."""
    draw, out = torch.Generator().manual_seed(seed), {}
    for layer, d in sorted(v.directions.items()):
        noise = torch.randn(d.shape, generator=draw)
        out[layer] = noise * (d.float().cpu().norm() / noise.norm())
    return Vector(
        v.place.like(out), v.meta | {"method": "random, norms of the persona's vector", "seed": seed}
    )
