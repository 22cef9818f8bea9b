"""One round on another vector than the persona's, steered, filtered and healed exactly as the healed round is.

The same prompts, draws, walk, checks (the persona's own on-trait check too), training and seeds; what differs is the
direction, so what such a round moves is what the rest of the method moves by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from steer_heal_love import loop, steps
from steer_heal_love.compare.bench import Bench
from steer_heal_love.compare.healed_round import unscaled
from steer_heal_love.compare.method import Cell
from steer_heal_love.filter.walk import choose_dose
from steer_heal_love.ground.errors import Starved
from steer_heal_love.session import Run
from steer_heal_love.vector import Vector


def alike(bench: Bench, make: Callable[[Run], Vector]) -> Iterator[Cell]:
    """Cells by scale of the update. Raises `Starved` where the walk finds no dose, or too little survives."""
    r = replace(bench.fresh(), folder=bench.folder)
    steps.VECTOR.once(r.folder, r.folder.round(0), lambda: make(r))
    vector, completions = loop.steered(r, 0)
    used = [c for c in completions if c.used]
    dose = choose_dose(completions, r.config.walk, r.base.coherent)
    if dose is None or len(used) < r.config.filter.least:
        raise Starved(
            f"{len(used)} steered completions survived the filter, {r.config.filter.least} are needed."
        )
    yield from unscaled(bench, *loop.healed(r, 0, used, vector, dose=dose))
