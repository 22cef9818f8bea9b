"""Means with honest intervals: percentile bootstrap over items; undefined is NaN and not counted in n."""

from __future__ import annotations

import numpy as np

from steer_heal_love.nouns import Score


def bootstrap(values: list[float], *, resamples: int, seed: int = 0, level: float = 0.95) -> Score:
    """Mean of the finite values and its percentile interval; no interval from fewer than two items."""
    x = np.asarray(values, dtype=float)
    x = x[np.isfinite(x)]
    if len(x) == 0:
        return Score.undefined()
    if len(x) == 1:
        return Score(float(x[0]), float("nan"), float("nan"), 1)
    draws = np.random.default_rng(seed).integers(0, len(x), (resamples, len(x)))
    tail = (1 - level) / 2
    lo, hi = np.quantile(x[draws].mean(1), (tail, 1 - tail))
    return Score(float(x.mean()), float(lo), float(hi), len(x))


def paired(
    values: list[float], base: list[float], *, resamples: int, seed: int = 0, level: float = 0.95
) -> Score:
    """Mean of value − base over the same items. Raises `ValueError` when the items don't pair up."""
    if len(values) != len(base):
        raise ValueError(f"paired items: {len(values)} against {len(base)}")
    difference = [v - b for v, b in zip(values, base, strict=True)]
    return bootstrap(difference, resamples=resamples, seed=seed, level=level)
