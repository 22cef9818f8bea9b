"""The healed loop: its knob is the number of rounds; past the last, all rounds together are scaled up.

Strength s ≤ R is the student after s rounds; s > R is the stack of all R, times s/R.
"""

from __future__ import annotations

from collections.abc import Iterator

from steer_heal_love import bake, loop
from steer_heal_love.compare.bench import Bench
from steer_heal_love.compare.method import Cell, method
from steer_heal_love.compare.scaled import with_adapter
from steer_heal_love.ground.errors import Diverged, Starved


@method("healed_loop", knob="rounds; past the last, all of them scaled", kind="healed")
def healed_loop(bench: Bench) -> Iterator[Cell]:
    r, stopped = bench.fresh(), None
    try:
        loop.every_round(r)
    except (Starved, Diverged) as e:
        stopped = e
    healed = [s for s in r.stages if s.stage == "healed"]
    for done, stage in enumerate(healed, 1):
        yield Cell(float(done), stage=stage, own=done == len(healed))
    if r.history:
        whole = bench.placed(bake.stack(r.history))
        for factor in bench.grid.beyond:
            yield Cell(len(r.history) * factor, (with_adapter(bench, whole.scaled(factor)),))
    if stopped:
        raise stopped
