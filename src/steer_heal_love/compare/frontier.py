"""A score where a method's frontier first crosses a budget of neutral KL.

In: by seed, items of neutral_kl and of the score, by strength. Out: the mean over seeds with its interval.

A frontier starts at the base (0, 0) and goes through its cells in rising strength. Between neighbours the
score is linear in √KL, since an update's effect grows with its size and KL with its square:

    y(b) = y_k + (y_{k+1} − y_k) · (√b − √KL_k) / (√KL_{k+1} − √KL_k),   k the first with KL_{k+1} ≥ b

A seed whose frontier never gets there has no value and is counted; no seed, no mean. In each resample seeds,
neutral items and score items are drawn apart, an item being the same in every seed and at every strength, and
the crossing is found anew: its own uncertainty is in the interval. Identity: at a cell's own KL, its own score.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from steer_heal_love.nouns import Score


@dataclass(frozen=True)
class Frontier:
    """One seed's cells in rising strength: items of neutral_kl [k, m] and of the score [k, n]."""

    kl: np.ndarray
    score: np.ndarray


@dataclass(frozen=True)
class Crossing:
    """The score at the budget (n: items), and how many seeds of how many get there."""

    score: Score
    reached: int
    seeds: int
    draws: np.ndarray


def at_budget(
    by_seed: list[Frontier], budget: float, *, resamples: int, seed: int = 0, level: float = 0.95
) -> Crossing:
    """The score at `budget`, over seeds. Draws of two methods pair up: same seeds, same items, same `seed`."""
    whole = np.array([cross(means(f.kl), means(f.score), budget)[0] for f in by_seed])
    reached = whole[np.isfinite(whole)]
    if not len(reached):
        return Crossing(Score.undefined(), 0, len(by_seed), np.full(resamples, np.nan))
    rng = np.random.default_rng(seed)
    of_seeds = shares(len(by_seed), resamples, rng)
    wide = [max(x.shape[1] for x in items) for items in zip(*((f.kl, f.score) for f in by_seed), strict=True)]
    of_kl, of_score = (shares(n, resamples, rng) for n in wide)
    drawn = [
        cross(means(f.kl, of_kl), means(f.score, of_score), budget) if len(f.kl) else np.full(resamples, np.nan)
        for f in by_seed
    ]  # fmt: skip
    draws = weighted(np.stack(drawn, 1), of_seeds)
    score = Score(float(reached.mean()), *percentiles(draws, level), wide[1])
    return Crossing(score, len(reached), len(by_seed), draws)


def cross(kl: np.ndarray, score: np.ndarray, budget: float) -> np.ndarray:
    """[r, k] frontiers, one a resample → [r] scores at the budget, NaN for one that never gets there."""
    if not kl.shape[1]:
        return np.full(len(kl), np.nan)
    base = np.zeros((len(kl), 1))
    x = np.sqrt(np.concatenate([base, np.maximum(kl, 0.0)], 1))
    y = np.concatenate([base, score], 1)
    past = x >= np.sqrt(budget) * (1 - 1e-9)  # a mean of equal items may be a rounding below them
    right = np.maximum(past.argmax(1), 1)[:, None]
    (x0, x1), (y0, y1) = ([np.take_along_axis(a, right - s, 1)[:, 0] for s in (1, 0)] for a in (x, y))
    with np.errstate(invalid="ignore", divide="ignore"):
        value = y0 + (y1 - y0) * (np.sqrt(budget) - x0) / (x1 - x0)
    return np.where(past.any(1), value, np.nan)


def means(items: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """[k, n] items → [r, k] means under [r, n] weights (even ones when None), one row a resample."""
    w = np.ones((1, items.shape[1])) if weights is None else weights
    return (
        np.stack([weighted(np.broadcast_to(row, w.shape), w) for row in items], 1) if len(items) else w[:, :0]
    )


def weighted(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[r] means of the finite values of each row [r, n] under its weights, NaN where there are none."""
    finite = np.isfinite(values)
    total, weight = (np.where(finite, a * weights, 0.0).sum(1) for a in (values, np.ones_like(values)))
    return np.divide(total, weight, out=np.full(len(values), np.nan), where=weight > 0)


def shares(n: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """[resamples, n]: how large a share of each resample every one of n things makes up."""
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n


def percentiles(draws: np.ndarray, level: float) -> tuple[float, float]:
    """Interval of the finite draws; undefined when more than one in twenty is not finite."""
    finite = draws[np.isfinite(draws)]
    if len(finite) < 0.95 * len(draws):
        return float("nan"), float("nan")
    tail = (1 - level) / 2
    lo, hi = np.quantile(finite, (tail, 1 - tail))
    return float(lo), float(hi)
