"""Null: the base merely cooled, z ← strength·z with strength = 1/temperature above 1; it knows no words at all."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from steer_heal_love.compare.bench import Bench
from steer_heal_love.compare.method import Cell, method
from steer_heal_love.ground.hooks import cooled


@method("null_temperature", knob="inverse temperature of the base's logits", kind="steered", null=True)
def null_temperature(bench: Bench) -> Iterator[Cell]:
    for inverse in bench.grid.coolings:
        yield Cell(inverse, (partial(cooled, bench.run.model, 1 / inverse),))
