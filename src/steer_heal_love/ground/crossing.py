"""Where a frontier of score against cost first has a given cost, and what of the cost's items moves that place.

A frontier starts at the base (0, 0) and goes through its cells in rising strength; between neighbours the score is
linear in the cost or, with `root`, in its square root, since an update's effect grows with its size and KL with its square.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Frontier:
    """One seed's cells in rising strength: items of the cost [k, m] and of the score [k, n]."""

    cost: np.ndarray
    score: np.ndarray


def cross(f: Frontier, budget: float, root: bool) -> tuple[np.ndarray, np.ndarray] | None:
    """Score items [n] at the crossing, and how far each cost item [m] moves it; None when it never gets there."""
    cost, score = (np.concatenate([np.zeros((1, x.shape[1])), x]) for x in (f.cost, f.score))
    c, y = mean_of(cost), mean_of(score)
    g, target = (np.sqrt(np.maximum(c, 0.0)), math.sqrt(budget)) if root else (c, budget)
    past = g >= target * (1 - 1e-9)  # a mean of equal items may be a rounding below them
    if not past.any():
        return None
    k = max(int(past.argmax()), 1)
    share = (target - g[k - 1]) / (g[k] - g[k - 1])
    slope = (y[k] - y[k - 1]) / (g[k] - g[k - 1])
    if not math.isfinite(share * slope):  # a cell that diverged is not bridged
        return None
    steep = [(0.5 / v if v > 0 else 0.0) if root else 1.0 for v in g]
    pairs = ((k - 1, 1 - share), (k, share))
    moved = sum(w * steep[i] * (cost[i] - c[i]) for i, w in pairs)
    return sum(w * score[i] for i, w in pairs), -slope * moved


def mean_of(rows: np.ndarray) -> np.ndarray:
    """[k, n] items → [k] means of the finite ones, NaN where there are none."""
    finite = np.isfinite(rows)
    total = np.where(finite, rows, 0.0).sum(1)
    return np.divide(total, finite.sum(1), out=np.full(len(rows), np.nan), where=finite.any(1))
