"""Cells of an adapter by scale, ΔW → strength·ΔW; trait grows with the scale, neutral KL with its square."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial

from steer_heal_love import steps
from steer_heal_love.compare.bench import Bench
from steer_heal_love.compare.method import Cell
from steer_heal_love.nouns import Adapter

KNOB = "scale of the update as trained"


def scaled(bench: Bench, adapter: Adapter, *, own: float = 1.0) -> Iterator[Cell]:
    """One cell a scale of the grid; the method's own default is the update as trained, or else the scale `own`."""
    for scale in bench.grid.scales:
        yield Cell(scale, (with_adapter(bench, adapter.scaled(scale)),), own=scale == own)


def with_adapter(bench: Bench, adapter: Adapter) -> partial[AbstractContextManager[None]]:
    """A context in which the base wears the adapter, in the form that is exported."""
    return partial(steps.exported, bench.run, [adapter])
