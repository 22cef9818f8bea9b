"""Soft targets on the base's own text, over several rounds: `soft_base` again on the student that the rounds made.

Each round reads the vector anew on the student, whose logits the teacher then moves, draws other text of the pristine
base, and is scaled to its part of the trust region, as the healed loop's rounds are. Strength as in the healed loop.
"""

from __future__ import annotations

from collections.abc import Iterator

from steer_heal_love import bake, loop
from steer_heal_love.compare.bench import Bench
from steer_heal_love.compare.method import Cell, method
from steer_heal_love.compare.scaled import with_adapter
from steer_heal_love.compare.soft_base import own_text, soft


@method("soft_base_loop", knob="rounds; past the last, all of them scaled", kind="healed")
def soft_base_loop(bench: Bench) -> Iterator[Cell]:
    r, healing = soft(bench), None
    for number in range(r.config.rounds):
        vector, text = loop.extracted(r, number), own_text(r, number)
        adapter, healing = loop.healed(r, number, text, vector, dose=r.config.walk.start, before=healing)
        r.history = [*r.history, bench.placed(adapter)]
        yield Cell(
            number + 1.0, (with_adapter(bench, bake.stack(r.history)),), own=number + 1 == r.config.rounds
        )
    whole = bake.stack(r.history)
    for factor in bench.grid.beyond:
        yield Cell(len(r.history) * factor, (with_adapter(bench, whole.scaled(factor)),))
