"""Cells to what `compare.json` holds: every method's points, and what it has at each budget.

A point is one strength: its scores over items × seeds (`ground.stats.crossed`), and in how many seeds it is the method's
own default (`own_default`). At a budget of neutral_kl (`at`):
`trait_shift` and `own_excess` where the frontier crosses it; at a budget of own_excess (`at_own_excess`):
`trait_shift`. Beside them the trait's difference from the reference method's and its verdict: ahead, behind or not told
apart. Its interval is one of `comparisons` (methods other than the reference and the nulls × budgets of both axes), so that all of them hold
together with 95%; `_alone` is what it would be as the only comparison. Undefined is NaN (null in the file) and counted:
`reached` of `seeds`. An end that the strongest cell doesn't reach is null too.

At a budget of neutral_kl also both halves of the trait, where every cell has them, and what is above the best null
(`compare.best`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from steer_heal_love.compare import best
from steer_heal_love.compare.frontier import Crossing, above, at_budget, difference, within
from steer_heal_love.compare.method import Trace
from steer_heal_love.config import Grid
from steer_heal_love.evals import by_item
from steer_heal_love.ground import records
from steer_heal_love.ground.crossing import Frontier, mean_of
from steer_heal_love.ground.declared import declared
from steer_heal_love.ground.stats import crossed, widened
from steer_heal_love.nouns import Json, Score, Stage

MEASURED = """trait_shift trait_pos trait_neg trait_over_neutral trait_over_off_topic choice_pos trait_generated_shift
    behaviour_shift behaviour_masked_shift neutral_kl own_excess own_kl own_entropy_shift text_auc repetition
    repetition_shift distinct_2 distinct_2_shift"""
SCORES = tuple(MEASURED.split())
"""what a point says, as far as it was measured"""
HALVES = ("trait_pos", "trait_neg")
"""the two scores that are the trait's shift together"""
REFERENCE = "healed_loop"
"""the method that the others are set against"""


@dataclass(frozen=True)
class Read:
    """A method at the budgets: trait and own_excess at each neutral_kl; trait at each own_excess, by the number of
    comparisons that its intervals share; both halves of the trait at each neutral_kl, empty where they weren't measured."""

    trait: list[Crossing]
    odd: list[Crossing]
    within: dict[int, list[Crossing]]
    halves: dict[str, list[Crossing]]


def of(traces: list[Trace], bases: dict[int, Stage], grid: Grid, resamples: int) -> Json:
    """The whole comparison, JSON-ready."""
    names = list(dict.fromkeys(t.method.name for t in traces))
    mine = {name: [t for t in traces if t.method.name == name] for name in names}
    nulls = [name for name in names if mine[name][0].method.null]
    others = len(names) - len(nulls) - 1
    comparisons = others * (len(grid.budgets) + len(grid.own_budgets)) if REFERENCE in names else 0
    found = {name: at_budgets(ts, bases, grid, resamples, comparisons) for name, ts in mine.items()}
    trait = {name: where.trait for name, where in found.items()}
    beyond, null_comparisons = best.beyond(trait, nulls, grid.budgets, resamples)
    against_it = {name: found.get(REFERENCE) for name in names if name not in [REFERENCE, *nulls]}
    compared = [
        described(ts, bases, grid, resamples)
        | against(found[name], against_it.get(name), grid, resamples, comparisons, beyond.get(name))
        for name, ts in mine.items()
    ]
    return records.plain(
        {
            "schema": records.SCHEMA,
            "kind": "compare",
            "seeds": list(bases),
            "reference": REFERENCE,
            "budgets": grid.budgets,
            "own_excess_budgets": grid.own_budgets,
            "comparisons": comparisons,
            "nulls": nulls,
            "null_comparisons": null_comparisons,
            "methods": compared,
        }
    )


def at_budgets(
    traces: list[Trace], bases: dict[int, Stage], grid: Grid, resamples: int, comparisons: int
) -> Read:
    kl, odd, trait = (
        [by_strength(t, bases, name) for t in traces] for name in ("neutral_kl", "own_excess", "trait_shift")
    )
    everywhere = set.intersection(*({strength for strength, _ in t.cells} for t in traces))
    has = [[strength in everywhere for strength, _ in t.cells] or [False] for t in traces]
    over = lambda cost, score: [Frontier(c, s) for c, s in zip(cost, score, strict=True)]
    common = [Frontier(c[h[: len(c)]], s[h[: len(s)]]) for c, s, h in zip(odd, trait, has, strict=True)]
    how = {"resamples": resamples}
    at = lambda score: [at_budget(over(kl, score), b, **how) for b in grid.budgets]
    halves = {
        name: at([by_strength(t, bases, name) for t in traces])
        for name in HALVES
        if all(
            declared[name].source in s.items
            for t in traces
            for s in (bases[t.seed], *(stage for _, stage in t.cells))
        )
    }
    own = {n: within(common, grid.own_budgets, comparisons=n, **how) for n in {1, comparisons}}
    return Read(at(trait), at(odd), own, halves)


def by_strength(trace: Trace, bases: dict[int, Stage], name: str) -> np.ndarray:
    """[k, n] items of a score in one seed; [0, 1] without any cell."""
    rows = [items(stage, bases[trace.seed], name) for _, stage in trace.cells]
    return np.array(rows) if rows else np.empty((0, 1))


def items(stage: Stage, base: Stage, name: str) -> list[float]:
    """A score's values by item, as a shift from base where its name says so."""
    return by_item(name, stage.items, base.items)


def against(
    mine: Read,
    reference: Read | None,
    grid: Grid,
    resamples: int,
    comparisons: int,
    beyond: list[Json] | None,
) -> dict[str, list[Json]]:
    """Rows of both axes, a row a budget: how many seeds get there, the scores, the trait over the reference's and over
    the best null's."""
    at = [
        row(b, t) | {"own_excess": o.score} | {name: half[i].score for name, half in mine.halves.items()}
        for i, (b, t, o) in enumerate(zip(grid.budgets, mine.trait, mine.odd, strict=True))
    ]
    own = [row(b, t) for b, t in zip(grid.own_budgets, mine.within[1], strict=True)]
    if reference:
        for i, r in enumerate(at):
            a, b = mine.trait[i], reference.trait[i]
            r |= said(*(above(a, b, resamples=resamples, comparisons=n) for n in (comparisons, 1)))
        for i, r in enumerate(own):
            r |= said(
                *(difference(mine.within[n][i].score, reference.within[n][i].score) for n in (comparisons, 1))
            )
    for r, more in zip(at, beyond or [], strict=False):
        r |= more
    return {"at": at, "at_own_excess": own}


def row(budget: float, found: Crossing) -> Json:
    return {"budget": budget, "reached": found.reached, "seeds": found.seeds, "trait_shift": found.score}


def said(shared: Score, alone: Score) -> Json:
    """A difference from the reference and its verdict, with the interval that all comparisons share and with its own."""
    return {
        "above_reference": shared,
        "verdict": best.verdict(shared),
        "above_reference_alone": alone,
        "verdict_alone": best.verdict(alone),
    }


def described(traces: list[Trace], bases: dict[int, Stage], grid: Grid, resamples: int) -> Json:
    """A method, its points, what stopped it, its seconds, and what it writes."""
    strengths = sorted({strength for t in traces for strength, _ in t.cells})
    return {
        "name": traces[0].method.name,
        "knob": traces[0].method.knob,
        "kind": traces[0].method.kind,
        "null": traces[0].method.null,
        "points": [point(traces, bases, strength, resamples) for strength in strengths],
        "stopped": {str(t.seed): t.stopped for t in traces if t.stopped},
        "seconds": round(sum(t.seconds for t in traces), 1),
        "samples": samples(traces, bases, grid.budgets[-1]),
    }


def point(traces: list[Trace], bases: dict[int, Stage], strength: float, resamples: int) -> Json:
    here = [(stage, bases[t.seed]) for t in traces for s, stage in t.cells if s == strength]
    named = [name for name in SCORES if all(name in stage.scores for stage, _ in here)]
    interval = lambda name: crossed([items(stage, base, name) for stage, base in here], resamples=resamples)
    scores = {
        name: widened(interval(name))
        if name in declared and declared[name].interval == "cross-fitted"
        else interval(name)
        for name in named
    }
    own = sum(t.own == strength for t in traces)
    return {"strength": strength, "seeds": len(here), "own_default": own, "scores": scores}


def samples(traces: list[Trace], bases: dict[int, Stage], budget: float) -> Json:
    """What the first seed's cell nearest to the budget writes, and the base: two probes, one neutral prompt."""
    cells = [(abs(cost(s) - budget), t, strength, s) for t in traces for strength, s in t.cells]
    if not cells or not cells[0][3].samples:
        return {}
    _, t, strength, stage = min((c for c in cells if c[1].seed == cells[0][1].seed), key=lambda c: c[0])
    pairs = list(zip(stage.samples, bases[t.seed].samples, strict=True))
    chosen = [*pairs[: min(2, len(pairs) // 2)], pairs[-1]]
    return {
        "seed": t.seed,
        "strength": strength,
        "texts": [{"prompt": a["prompt"], "text": a["text"], "base": b["text"]} for a, b in chosen],
    }


def cost(stage: Stage) -> float:
    return float(mean_of(np.array([stage.items["neutral_kl"]]))[0])
