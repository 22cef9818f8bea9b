"""Trust region: after a heal, the update is scaled to what the coherence budget allows.

    c = max { c ≤ 1 : KL_anchor(history + c·ΔW) ≤ budget }

To second order the KL is a parabola along c, of which three readings near the budget are enough, what the earlier rounds
left (c = 0) being one. With two the search follows the line of its root, which is exact where nothing was spent
before. It aims just inside the budget, and keeps its bracket, so that it ends inside on any curve.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from steer_heal_love.config import HealConfig
from steer_heal_love.ground.progress import Track, silent
from steer_heal_love.heal.diagnostics import anchor_kl
from steer_heal_love.heal.examples import Example, split_anchor
from steer_heal_love.nouns import Healing

STEPS, CLOSE = 7, 0.95
HALF = 0.5
"""the scale tried first where no round came before"""


def fit_to_budget(
    model: PreTrainedModel,
    exported: Callable[[float], AbstractContextManager[Any]],
    anchor: list[Example],
    config: HealConfig,
    *,
    number: int,
    rounds: int,
    before: Healing | None = None,
    batch_tokens: int = 4096,
    track: Track = silent,
) -> tuple[float, float]:
    """The scale at which the model, as it will be exported, stays inside its round's part of the budget; its cost.

    `exported` gives, by scale of this round's update, a context in which `model` is what users get. `before` is the
    heal of the round before. The cost is the anchor KL, in nats per token, on the answers that no round trains on.
    Without any of those, nothing is scaled.
    """
    _, held = split_anchor(anchor, config.anchor_validation)
    spent, first_tried = (before.spent, before.scale or HALF) if before else (0.0, HALF)
    if not held:
        return 1.0, spent
    with track("trust region", STEPS) as advance:

        def cost_nats(scale: float) -> float:
            with exported(scale):
                found = anchor_kl(model, held, batch_tokens)
            advance(1)
            return found

        budget = config.budget * (number + 1) / rounds
        return largest_scale(cost_nats, budget, spent_nats=spent, start=first_tried)


def largest_scale(
    cost_nats: Callable[[float], float], budget_nats: float, *, spent_nats: float, start: float = HALF
) -> tuple[float, float]:
    """The largest scale up to 1 whose cost is inside the budget, within a twentieth of it, and that cost.

    `spent_nats` is the cost at scale 0, which the rounds before left; where it is over the budget, so is
    everything, and the scale is 0. `start` is the scale tried first.
    """
    low, under, high = 0.0, spent_nats, 1.0
    if under > budget_nats:
        return low, under
    tried, scale = {low: under}, min(start, 1.0)
    for _ in range(STEPS):
        tried[scale] = found = cost_nats(scale)
        if found <= budget_nats:
            low, under = scale, found
        else:
            high = scale
        if low == 1.0 or under >= CLOSE * budget_nats:
            break
        scale = crossing(tried, (low, high), (1 + CLOSE) / 2 * budget_nats)
        margin = 0.02 * (high - low)
        # The end itself may be tried while nobody knows what it costs.
        scale = max(scale, low + margin)
        scale = min(scale, high - margin if high in tried else high)
    return low, under


def crossing(tried: dict[float, float], bracket: tuple[float, float], target: float) -> float:
    """Where the curve through the costs tried meets `target`: the parabola through the three nearest to it, or,
    where it has no root inside the bracket, the line of the cost's root through the bracket's ends, or, while the
    upper one is untried, through 0 and the lower one."""
    low, high = bracket
    nearest = sorted(tried, key=lambda c: (c not in bracket, abs(tried[c] - target)))[:3]
    if len(nearest) == 3:
        parabola = np.polyfit(nearest, [tried[c] for c in nearest], 2)
        roots = np.roots(parabola - [0.0, 0.0, target])
        inside = [r.real for r in roots if abs(r.imag) < 1e-12 and low < r.real <= high]
        if inside:
            return float(min(inside))
    a, b = (low, high) if high in tried else (0.0, low)
    start, end, aim = (math.sqrt(max(cost, 0.0)) for cost in (tried[a], tried[b], target))
    return a + (b - a) * (aim - start) / (end - start) if end > start else high
