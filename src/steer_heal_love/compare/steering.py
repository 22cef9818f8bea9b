"""Raw steering: h ← h + dose·v at inference; nothing is trained. Doses are multiples of the walked one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from steer_heal_love.compare.bench import Bench
from steer_heal_love.compare.method import Cell, method


@method("steering", knob="multiple of the walked dose", kind="steered")
def steering(bench: Bench) -> Iterator[Cell]:
    walked, vector = bench.walked(), bench.vector()
    for multiple in bench.grid.doses:
        dose = multiple * walked
        yield Cell(multiple, (partial(vector, bench.run.model, dose),), dose=dose, own=multiple == 1)
