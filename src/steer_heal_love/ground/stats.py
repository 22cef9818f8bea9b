"""Means with honest intervals, over items and over seeds; undefined is NaN and not counted in n.

One seed: the hull of two intervals, m ± t·s/√n and the studentised bootstrap m − q*·s/√n with q* the quantiles
of (m* − m)/(s*/√n). Each falls short where the other doesn't: t on skewed items, the bootstrap on heavy tails.
Items that are each 0 or 1 get Wilson's interval (`counted`); differences of such items don't, since they are none.

Seeds crossed with items, x_si = μ + a_s + b_i + e_si: the half-width is √(items² + (t_{S−1}·se_seeds)²), where
`items` is the half-width over the items' means and se_seeds² = (MS_seeds − MS_rest)₊ / (S·n). Three seeds are too
few to resample. A sum over tables of different items (a reading between two scores) adds their half-widths in
quadrature too. Several comparisons at once share the error that one may make (Bonferroni).

Identity: one seed is `bootstrap`. Sources: Efron & Tibshirani 1993, ch. 12; Graybill & Wang 1980; Fieller 1954.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Int

from steer_heal_love.nouns import Score

LEVEL = 0.95
GRID = 20_001
REMEMBERED = 2_000_000
"""entries of the largest table of resamples that is kept: 16 MB"""
CROSS_FITTED = 2.0
"""variance of the mean of parts that each came from a classifier trained on the others, over what their spread says,
where nothing is to be learned: a pair's chance likeness enters the parts of both"""


def bootstrap(
    values: list[float], *, resamples: int, seed: int = 0, level: float = LEVEL, comparisons: int = 1
) -> Score:
    """Mean of the finite values and its interval; no interval from fewer than two items."""
    x = np.asarray(values, dtype=float)
    x = x[np.isfinite(x)]
    n, level = len(x), corrected(level, comparisons)
    if n < 2:
        return Score(float(x[0]), math.nan, math.nan, 1) if n else Score.undefined()
    mean, error = float(x.mean()), float(x.std(ddof=1) / math.sqrt(n))
    drawn = remembered if n * resamples <= REMEMBERED else resampled
    draws = x[drawn(n, resamples, seed)]
    means = draws.mean(1)
    draws -= means[:, None]
    # What `draws.std(1, ddof=1) / √n` gives, which would take the means once more.
    errors = np.sqrt(np.einsum("rn,rn->r", draws, draws) / ((n - 1) * n))
    # A resample of equal items has no error to be measured by; with such items t holds the interval up.
    usable = errors > 1e-9 * error
    students = (means[usable] - mean) / errors[usable] if usable.any() and error else np.zeros(1)
    low, high = np.quantile(students, ((1 - level) / 2, (1 + level) / 2))
    t = t_quantile((1 + level) / 2, n - 1)
    return Score(mean, mean - max(t, float(high)) * error, mean + max(t, -float(low)) * error, n)


def resampled(n: int, resamples: int, seed: int) -> Int[np.ndarray, "r n"]:
    """Which of n items each resample has."""
    found = np.random.default_rng(seed).integers(0, n, (resamples, n))
    found.setflags(write=False)
    return found


remembered = lru_cache(maxsize=8)(resampled)
"""most scores of a run have one of a few sizes, and drawing takes longer than the rest of a bootstrap"""


def counted(values: list[float], *, resamples: int, seed: int = 0, share: bool = False) -> Score:
    """`bootstrap` of items as they are, and never of differences: items that are each 0 or 1 get Wilson's interval. Where
    all are 0, or all 1, only `share` says that they are such items."""
    x = [v for v in values if math.isfinite(v)]
    kinds = set(x)
    if len(x) > 1 and (kinds == {0.0, 1.0} or (share and kinds <= {0.0, 1.0})):
        mean = sum(x) / len(x)
        return Score(mean, *wilson(mean, len(x)), len(x))
    return bootstrap(values, resamples=resamples, seed=seed)


def paired(
    values: list[float],
    base: list[float],
    *,
    resamples: int,
    seed: int = 0,
    level: float = LEVEL,
    comparisons: int = 1,
) -> Score:
    """Mean of value − base over the same items. Raises `ValueError` when the items don't pair up."""
    difference = subtract(values, base)
    return bootstrap(difference, resamples=resamples, seed=seed, level=level, comparisons=comparisons)


def widened(s: Score) -> Score:
    """The interval of items that were each scored by a classifier trained on the other items, √2 as wide.

    Where nothing is to be learned, how two items resemble each other by chance enters the score of both, one's as
    training text for the other: the mean's variance is then twice what the items' own spread says.
    """
    return Score(
        s.mean, s.mean - math.sqrt(2) * (s.mean - s.lo), s.mean + math.sqrt(2) * (s.hi - s.mean), s.n
    )


def proportion(values: list[float], *, effect: float = 1.0, level: float = LEVEL) -> Score:
    """Mean of values whose mean lies between 0 and 1 (an AUC's parts), with Wilson's interval at the number of fair
    draws that would have the same error, p(1 − p)/se², corrected for se being estimated; at p = 0 or 1, and where the
    values don't differ, at n. `effect` is what se² falls short by. Source: Korn & Graubard 1998."""
    x = np.asarray([v for v in values if math.isfinite(v)], dtype=float)
    n = len(x)
    if n < 2:
        return Score(float(x[0]), math.nan, math.nan, 1) if n else Score.undefined()
    p, variance = min(max(float(x.mean()), 0.0), 1.0), float(x.var(ddof=1)) / n
    z, t = NormalDist().inv_cdf((1 + level) / 2), t_quantile((1 + level) / 2, n - 1)
    size = p * (1 - p) / variance * (z / t) ** 2 if variance > 0 and 0 < p < 1 else n
    return Score(p, *wilson(p, size / effect, level), n)


def ratio(part: list[float], whole: list[float], *, resamples: int, seed: int = 0) -> Score:
    """mean(part)/mean(whole) over the same items, with every share θ at which the mean of part − θ·whole can't be
    told from 0 (Fieller 1954), so that it holds what `bootstrap` does; none where the whole can't be told from 0."""
    pairs = np.array([p for p in zip(part, whole, strict=True) if np.isfinite(p).all()]).reshape(-1, 2)
    x, y = pairs.T
    told = lambda v: bootstrap(v.tolist(), resamples=resamples, seed=seed)
    n, top, clear = len(pairs), told(x), told(y)
    share = top.mean / clear.mean if clear.mean else math.nan
    if not (clear.lo > 0 or clear.hi < 0):
        return Score(share, math.nan, math.nan, n)

    def edge(side: int) -> float:
        holds = lambda away: (s := told(x - (share + side * away) * y)).lo <= 0 <= s.hi
        near, far = 0.0, max(float(np.std(x - share * y)) / abs(clear.mean), 1e-6)
        while holds(far):
            near, far = far, 2 * far
        for _ in range(12):
            near, far = ((near + far) / 2, far) if holds((near + far) / 2) else (near, (near + far) / 2)
        return share + side * (near + far) / 2

    return Score(share, edge(-1), edge(1), n)


def crossed(
    values: list[list[float]], *, resamples: int, seed: int = 0, level: float = LEVEL, comparisons: int = 1
) -> Score:
    """Mean of values[seed][item], the same items for every seed; n counts items that every seed defines.

    Pair first: subtract the base, or another model, item by item within each seed (`subtract`).
    """
    if len({len(row) for row in values}) > 1:
        raise ValueError(f"crossed items: {[len(row) for row in values]}")
    return summed(
        [np.asarray(values, dtype=float)],
        resamples=resamples,
        seed=seed,
        level=level,
        comparisons=comparisons,
    )


def summed(
    tables: list[Float[np.ndarray, "k _"]],
    *,
    resamples: int,
    seed: int = 0,
    level: float = LEVEL,
    comparisons: int = 1,
) -> Score:
    """Sum of the tables' grand means: items differ between tables, seeds are the same; n is the first's."""
    tables = [x[:, np.isfinite(x).all(0)] for x in tables]
    parts = [
        bootstrap(x.mean(0).tolist(), resamples=resamples, seed=seed, level=level, comparisons=comparisons)
        for x in tables
    ]
    seeds = len(tables[0])
    if (seeds == 1 and len(parts) == 1) or any(p.n < 2 for p in parts):
        whole = len(parts) == 1
        ends = (parts[0].lo, parts[0].hi) if whole else (math.nan, math.nan)
        return Score(sum(p.mean for p in parts), *ends, parts[0].n)
    mean = sum(p.mean for p in parts)
    t = t_quantile((1 + corrected(level, comparisons)) / 2, seeds - 1) if seeds > 1 else 0.0
    spread = t * seed_error(*tables)
    return Score(
        mean,
        mean - math.hypot(*(p.mean - p.lo for p in parts), spread),
        mean + math.hypot(*(p.hi - p.mean for p in parts), spread),
        parts[0].n,
    )


def seed_error(*tables: Float[np.ndarray, "k _"]) -> float:
    """Standard error that the draw of k seeds adds to the (sum of) grand means (two-way analysis of variance)."""
    seeds = len(tables[0])
    if seeds == 1:
        return 0.0
    of_seed = np.sum([x.mean(1) for x in tables], axis=0)
    rest = sum(noise(x) / x.shape[1] for x in tables)
    return math.sqrt(max(float(of_seed.var(ddof=1)) - rest, 0.0) / seeds)


def noise(x: Float[np.ndarray, "k n"]) -> float:
    """Mean square of what neither seed nor item explains."""
    seeds, n = x.shape
    left = x - x.mean(1, keepdims=True) - x.mean(0, keepdims=True) + x.mean()
    return float((left**2).sum()) / ((seeds - 1) * (n - 1))


def unpaired(a: list[float], b: list[float], *, level: float = LEVEL) -> Score:
    """mean(a) − mean(b) of different items, Welch's interval; n counts both sides."""
    x, y = (np.asarray([v for v in side if math.isfinite(v)], dtype=float) for side in (a, b))
    n = len(x) + len(y)
    if not len(x) or not len(y):
        return Score.undefined()
    gap = float(x.mean() - y.mean())
    if len(x) < 2 or len(y) < 2:
        return Score(gap, math.nan, math.nan, n)
    u, v = x.var(ddof=1) / len(x), y.var(ddof=1) / len(y)
    if u + v == 0:
        return Score(gap, gap, gap, n)
    share = u / (u + v)  # squares of shares, since those of variances overflow
    df = 1 / (share**2 / (len(x) - 1) + (1 - share) ** 2 / (len(y) - 1))
    half = t_quantile((1 + level) / 2, float(df)) * math.sqrt(u + v)
    return Score(gap, gap - half, gap + half, n)


def by_group(values: Sequence[float], groups: Sequence[Hashable]) -> list[float]:
    """Each group's mean of what is finite, NaN where nothing is, in the order in which groups first come: values of one group
    say little more than one of them, so intervals are over groups. Raises `ValueError` for lists of other lengths."""
    each: dict[Hashable, list[float]] = {}
    for group, value in zip(groups, values, strict=True):
        each.setdefault(group, []).extend([value] if math.isfinite(value) else [])
    return [sum(found) / len(found) if found else math.nan for found in each.values()]


def subtract(values: list[float], base: list[float]) -> list[float]:
    """value − base by item. Raises `ValueError` when the items don't pair up."""
    if len(values) != len(base):
        raise ValueError(f"paired items: {len(values)} against {len(base)}")
    return [v - b for v, b in zip(values, base, strict=True)]


def corrected(level: float, comparisons: int) -> float:
    """The level at which `comparisons` intervals all hold with at least `level` together (Bonferroni)."""
    return 1 - (1 - level) / max(comparisons, 1)


def wilson(share: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Score interval of a share of n: honest at 0 and 1, where others have no width."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return min(max(centre - half, 0.0), share), max(min(centre + half, 1.0), share)


@lru_cache(maxsize=256)
def t_quantile(p: float, df: float) -> float:
    """Student's t: with t = √df·tan θ its density over θ is ∝ cos^(df−1) θ, summed on a grid."""
    if df > 1000:
        return NormalDist().inv_cdf(p)
    theta = np.linspace(-math.pi / 2, math.pi / 2, GRID)
    density = np.cos(theta) ** (df - 1)
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return float(math.sqrt(df) * math.tan(np.interp(p, mass / mass[-1], theta)))
