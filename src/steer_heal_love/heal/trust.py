"""Trust region: after a heal, the update is scaled to what the coherence budget allows.

    c = max { c ≤ 1 : KL_anchor(history + c·ΔW) ≤ budget }

To second order the KL is a parabola along c, of which three readings are enough. With two (the ends) the search
follows the chord of its root, which is exact where nothing was spent before. It aims just inside the budget,
and keeps its bracket, so that it ends inside on any curve.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

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
    tried = {low: under, high: over}
    for _ in range(STEPS):
        if under >= CLOSE * budget_nats:
            break
        margin = 0.05 * (high - low)
        middle = min(
            max(crossing(tried, (low, high), (1 + CLOSE) / 2 * budget_nats), low + margin), high - margin
        )
        tried[middle] = found = cost_nats(middle)
        if found <= budget_nats:
            low, under = middle, found
        else:
            high, over = middle, found
    return low, under


def crossing(tried: dict[float, float], bracket: tuple[float, float], target: float) -> float:
    """Where the curve through the costs tried meets `target`: the parabola through the three nearest to it, or,
    where it has no root inside the bracket, the chord of the cost's root between the bracket's ends."""
    low, high = bracket
    nearest = sorted(tried, key=lambda c: (c not in bracket, abs(tried[c] - target)))[:3]
    if len(nearest) == 3:
        a, b, c = np.polyfit(nearest, [tried[c] for c in nearest], 2)
        roots = np.roots([a, b, c - target])
        inside = [r.real for r in roots if abs(r.imag) < 1e-12 and low < r.real < high]
        if inside:
            return float(min(inside))
    start, end, aim = (math.sqrt(max(cost, 0.0)) for cost in (tried[low], tried[high], target))
    return low + (high - low) * (aim - start) / (end - start)
