"""What a method has at a budget: where its frontier crosses it, with intervals that hold with three seeds.

In: by seed, items of a cost and of a score, by strength. Out: the mean over seeds with its interval.

`at_budget`, where the cost is well measured (neutral_kl). A frontier starts at the base (0, 0) and goes through its
cells in rising strength. Between neighbours the score is linear in g = √cost, since an update's effect grows with
its size and KL with its square; the first crossing along the knob counts:

    y(b) = y_k + (y_{k+1} − y_k) · λ,   λ = (g(b) − g_k) / (g_{k+1} − g_k),   k the first with g_{k+1} ≥ g(b)

in each seed. Its uncertainty is that of two tables, seeds × items: the score's items at the crossing, which it is
the mean of, and the cost's items times −dy/dcost, which move the crossing (to first order). `stats.summed` reads
both: t with seeds − 1 degrees of freedom times the standard error over seeds, in quadrature with items. Two
methods' tables subtract item by item. A seed that never gets there has no value and is counted; no interval then.

`within`, where it isn't (own_excess: with 64 samples its error is as large as a budget, and it may fall before it
rises). A seed's own crossing would be luck there, and so would one strength's reading within the budget. So the
curve is the mean over seeds at the strengths that all have, and what is asked at each score y along it, which is
well measured and rises, is the cost Q(y) with its interval. The value is where Q first reaches b from the base on,
so that no method is credited for a dip past it; its interval is every y at which the interval of Q holds b (test
inversion, Fieller 1954), from the first whose upper end reaches b to the last whose lower end isn't past it. An end
that the strongest cell doesn't reach is infinite; a Q that never reaches b has no value, and a lower end only. The
difference of two methods joins their intervals as if they were independent (Zou & Donner 2008): what they share
makes that too wide, never too narrow.

Identity: at a cell's own cost, its own score.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from steer_heal_love.ground.crossing import Frontier, cross, mean_of
from steer_heal_love.ground.stats import summed
from steer_heal_love.nouns import Score

STEPS = 24
"""values of the score at which `within` reads the cost"""


@dataclass(frozen=True)
class Crossing:
    """The score at the budget (n: items), how many seeds of how many get there, and the tables it is the sum of."""

    score: Score
    reached: int
    seeds: int
    tables: tuple[np.ndarray, ...] = ()


def at_budget(by_seed: list[Frontier], budget: float, **how: int) -> Crossing:
    """The score where each seed's cost first reaches `budget`; `how` goes to `stats.summed`."""
    found = [c for f in by_seed if (c := cross(f, budget, root=True)) is not None]
    if not found:
        return Crossing(Score.undefined(), 0, len(by_seed))
    tables = tuple(np.array(rows) for rows in zip(*found, strict=True))
    mean = float(np.mean([np.nanmean(score) for score, _ in found]))
    if len(found) < len(by_seed):
        return Crossing(Score(mean, math.nan, math.nan, tables[0].shape[1]), len(found), len(by_seed))
    return Crossing(summed(list(tables), **how), len(found), len(by_seed), tables)


def above(a: Crossing, b: Crossing, **how: int) -> Score:
    """a − b, item by item and seed by seed; undefined unless both get there in every seed."""
    if min(a.reached, b.reached) < a.seeds:
        return Score.undefined()
    return summed([x - y for x, y in zip(a.tables, b.tables, strict=True)], **how)


def within(by_seed: list[Frontier], budgets: tuple[float, ...], **how: int) -> list[Crossing]:
    """The score at which the mean cost over seeds first reaches each budget; the same strengths in every seed."""
    seeds = len(by_seed)
    if not len(by_seed[0].cost):
        return [Crossing(Score.undefined(), 0, seeds)] * len(budgets)
    cost, score = (np.concatenate([getattr(f, name) for f in by_seed], 1) for name in ("cost", "score"))
    top = max(float(np.nanmax(mean_of(score), initial=0.0)), 0.0)
    y = np.linspace(0.0, top, STEPS + 1 if top else 1)
    found = [cross(Frontier(score, cost), v, root=False) for v in y[1:]]
    totals = [summed([x.reshape(seeds, -1) for x in tables], **how) for tables in found if tables]
    if len(totals) < len(found):
        return [Crossing(Score.undefined(), 0, seeds)] * len(budgets)
    mean, lo, hi = (np.array([0.0, *(getattr(s, end) for s in totals)]) for end in ("mean", "lo", "hi"))
    out = []
    for b in budgets:
        value = first(y, mean, b)
        # Backwards from the strongest: the last value at which the cost may still be within the budget.
        high = math.inf if lo[-1] <= b else first(y[::-1], -lo[::-1], -b)
        n = by_seed[0].score.shape[1]
        out.append(Crossing(Score(value, first(y, hi, b), high, n), seeds * math.isfinite(value), seeds))
    return out


def first(y: np.ndarray, cost: np.ndarray, budget: float) -> float:
    """Where the cost, linear between neighbours, first reaches the budget; NaN where it never does."""
    past = cost >= budget - 1e-9 * abs(budget)
    k = int(past.argmax())
    if not k:
        return float(y[0]) if past[0] else math.nan
    return float(y[k - 1] + (y[k] - y[k - 1]) * (budget - cost[k - 1]) / (cost[k] - cost[k - 1]))


def difference(a: Score, b: Score) -> Score:
    """a − b from their own intervals, as if independent; undefined unless both have a value."""
    if not (math.isfinite(a.mean) and math.isfinite(b.mean)):
        return Score.undefined()
    mean = a.mean - b.mean
    lo, hi = math.hypot(a.mean - a.lo, b.hi - b.mean), math.hypot(a.hi - a.mean, b.mean - b.lo)
    return Score(mean, mean - lo, mean + hi, a.n)
