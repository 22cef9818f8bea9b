"""One healed round: the loop's first adapter, with the trust region's scale taken out so that the knob is free."""

from __future__ import annotations

from collections.abc import Iterator

from steer_heal_love import loop
from steer_heal_love.compare.bench import Bench
from steer_heal_love.compare.method import Cell, method
from steer_heal_love.compare.scaled import KNOB, scaled
from steer_heal_love.ground.errors import Starved
from steer_heal_love.nouns import Adapter, Healing


@method("healed_round", knob=KNOB, kind="healed")
def healed_round(bench: Bench) -> Iterator[Cell]:
    healed = loop.healed(bench.fresh(), 0, bench.kept(), bench.vector(), dose=bench.walked())
    yield from unscaled(bench, *healed)


def unscaled(bench: Bench, adapter: Adapter, healing: Healing) -> Iterator[Cell]:
    """Cells of a round's adapter by scale of the update as it was trained."""
    if not healing.scale:
        raise Starved("round 0: the trust region left nothing of the update; raise heal.budget.")
    yield from scaled(bench, bench.placed(adapter).scaled(1.0 / healing.scale), own=healing.scale)
