"""Trust region: after a heal, the update is scaled to what the coherence budget allows.

    c = max { c ≤ 1 : KL_anchor(history + c·ΔW) ≤ budget }

The root of the KL is close to a norm of the whole update, so it is convex along c: a chord between a scale
inside the budget and one outside lies above it, and where the chord meets the budget the model is still
inside. The search steps there, from below, and keeps its bracket, so it ends inside on any curve.
"""

from __future__ import annotations

import math
from collections.abc import Callable

STEPS, CLOSE = 6, 0.95


def largest_scale(
    cost_nats: Callable[[float], float], budget_nats: float, *, spent_nats: float
) -> tuple[float, float]:
    """The largest scale up to 1 whose cost is inside the budget, within a twentieth of it, and that cost.

    `spent_nats` is the cost at scale 0, which the rounds before left; where it is over the budget, so is
    everything, and the scale is 0.
    """
    low, under = 0.0, spent_nats
    if under > budget_nats:
        return low, under
    high, over = 1.0, cost_nats(1.0)
    if over <= budget_nats:
        return high, over
    for _ in range(STEPS):
        if under >= CLOSE * budget_nats:
            break
        share = (math.sqrt(budget_nats) - math.sqrt(under)) / (math.sqrt(over) - math.sqrt(under))
        middle = low + min(max(share, 0.05), 0.95) * (high - low)
        found = cost_nats(middle)
        if found <= budget_nats:
            low, under = middle, found
        else:
            high, over = middle, found
    return low, under
