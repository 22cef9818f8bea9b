"""What a method has above the best null at equal neutral_kl.

At each budget the null with the highest trait, by its point estimate, of those that get there in every seed; doing
nothing, with a trait of 0, where all of them lose some. Which one that is, the data choose, so the interval of a
difference is one of as many comparisons as there are nulls, times the methods that are set against them, times budgets.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from steer_heal_love.compare.frontier import Crossing, above
from steer_heal_love.nouns import Json, Score

NOTHING = "base"


def beyond(
    trait: dict[str, list[Crossing]],
    nulls: list[str],
    budgets: tuple[float, ...],
    resamples: int,
) -> tuple[dict[str, list[Json]], int]:
    """By method, nulls included, a row a budget: the best null, its trait, and the trait above it, its interval one of all comparisons and
    alone; the number of comparisons. Nothing without a null."""
    if not nulls:
        return {}, 0
    comparisons = len(nulls) * (len(trait) - len(nulls)) * len(budgets)
    out: dict[str, list[Json]] = {name: [] for name in trait}
    for i in range(len(budgets)):
        name, null = best({n: trait[n][i] for n in nulls})
        for method, at in trait.items():
            row: Json = {"best_null": name, "null_trait": null.score if null else Score.undefined()}
            if method not in nulls:
                shared, alone = (
                    above(at[i], null, resamples=resamples, comparisons=n) if null else Score.undefined()
                    for n in (comparisons, 1)
                )
                row |= {"above_null": shared, "null_verdict": verdict(shared), "above_null_alone": alone}
            out[method].append(row)
    return out, comparisons


def best(at: dict[str, Crossing]) -> tuple[str | None, Crossing | None]:
    """The best null at one budget, or none where none gets there in every seed."""
    there = {n: c for n, c in at.items() if c.reached == c.seeds and math.isfinite(c.score.mean)}
    if not there:
        return None, None
    name = max(there, key=lambda n: there[n].score.mean)
    if there[name].score.mean >= 0:
        return name, there[name]
    c = there[name]
    return NOTHING, replace(
        c, score=Score(0.0, 0.0, 0.0, c.score.n), tables=tuple(map(np.zeros_like, c.tables))
    )


def verdict(difference: Score) -> str | None:
    """None where there is no interval. Not told apart: the interval holds 0, which doesn't say that they are equal."""
    if math.isnan(difference.lo) or math.isnan(difference.hi):
        return None
    return "ahead" if difference.lo > 0 else "behind" if difference.hi < 0 else "not told apart"
