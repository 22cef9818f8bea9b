"""Soft targets on the base's own text, over several rounds: `soft_base` again on the student that the rounds made.

Each round reads the vector anew on the student, whose logits the teacher then moves, draws other text of the pristine
base, and is scaled to its part of the trust region, as the healed loop's rounds are. Strength as in the healed loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from steer_heal_love import bake, loop, steps
from steer_heal_love.compare.bench import Bench
from steer_heal_love.compare.method import Cell, method
from steer_heal_love.compare.scaled import worn
from steer_heal_love.compare.soft_base import own_text, soft
from steer_heal_love.vector import Vector


@method("soft_base_loop", knob="rounds; past the last, all of them scaled", kind="healed")
def soft_base_loop(bench: Bench) -> Iterator[Cell]:
    r = soft(bench)
    for number in range(r.config.rounds):
        file = r.folder.round(number) / "vector.safetensors"
        vector = r.folder.once(
            "vector", file, Vector.load, Vector.save, partial(steps.steer, r), round=number
        )
        row: dict[str, Any] = {"round": number, "dose": r.config.walk.start}
        r.rounds.append(row)
        adapter, row["healing"] = loop.healed(r, number, own_text(r, number), vector)
        r.history = [*r.history, bench.placed(adapter)]
        yield Cell(number + 1.0, (worn(bench, bake.stack(r.history)),), own=number + 1 == r.config.rounds)
    whole = bake.stack(r.history)
    for factor in bench.grid.beyond:
        yield Cell(len(r.history) * factor, (worn(bench, whole.scaled(factor)),))
