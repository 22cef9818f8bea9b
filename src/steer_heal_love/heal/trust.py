"""Trust region: after a heal, the update is scaled to what the coherence budget allows.

    c = max { c ≤ 1 : KL_anchor(history + c·ΔW) ≤ budget }

To second order the KL is a parabola along c, of which three readings near the budget are enough, what the earlier rounds
left (c = 0) being one. With two the search follows the line of its root, which is exact where nothing was spent
before. It aims just inside the budget, and keeps its bracket, so that it ends inside on any curve.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

STEPS, CLOSE = 7, 0.95


def largest_scale(
    cost_nats: Callable[[float], float], budget_nats: float, *, spent_nats: float, start: float = 0.5
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
