"""Cells to what `compare.json` holds: every method's points, and what it has at each budget.

A point is one strength: its scores over items × seeds (`ground.stats.crossed`). At a budget: `trait_shift` and
`own_excess` where the frontier crosses it, and the trait's difference from the reference method's, drawn in
pairs. Undefined is NaN (null in the file) and counted: `reached` of `seeds`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from steer_heal_love.compare.frontier import Crossing, Frontier, at_budget, means, percentiles
from steer_heal_love.compare.grid import Grid
from steer_heal_love.compare.method import Trace
from steer_heal_love.evals import SHIFTS
from steer_heal_love.ground import records
from steer_heal_love.ground.stats import crossed, subtract
from steer_heal_love.nouns import Score, Stage

SCORES = ("trait_shift", "trait_generated_shift", "neutral_kl", "own_excess", "repetition", "distinct_2")
CROSSED = ("trait_shift", "own_excess")
REFERENCE = "healed_loop"
"""the method that the others are set against"""


def of(traces: list[Trace], bases: dict[int, Stage], grid: Grid, resamples: int) -> dict[str, Any]:
    """The whole comparison, JSON-ready."""
    names = list(dict.fromkeys(t.method.name for t in traces))
    mine = {name: [t for t in traces if t.method.name == name] for name in names}
    found = {name: crossings(ts, bases, grid, resamples) for name, ts in mine.items()}
    compared = [
        described(ts, bases, grid, resamples) | {"at": against(found[name], found.get(REFERENCE), grid)}
        for name, ts in mine.items()
    ]
    return records.plain({
        "schema": records.SCHEMA, "kind": "compare", "seeds": list(bases), "reference": REFERENCE,
        "budgets": grid.budgets, "methods": compared,
    })  # fmt: skip


def crossings(
    traces: list[Trace], bases: dict[int, Stage], grid: Grid, resamples: int
) -> list[dict[str, Crossing]]:
    """What a method has at each budget."""
    frontiers = {
        name: [Frontier(by_strength(t, bases, "neutral_kl"), by_strength(t, bases, name)) for t in traces]
        for name in CROSSED
    }
    return [
        {name: at_budget(f, budget, resamples=resamples) for name, f in frontiers.items()}
        for budget in grid.budgets
    ]


def by_strength(trace: Trace, bases: dict[int, Stage], name: str) -> np.ndarray:
    """[k, n] items of a score in one seed; [0, 1] without any cell."""
    rows = [items(stage, bases[trace.seed], name) for _, stage in trace.cells]
    return np.array(rows) if rows else np.empty((0, 1))


def items(stage: Stage, base: Stage, name: str) -> list[float]:
    """A score's values by item, as a shift from base where its name says so."""
    source = SHIFTS.get(name)
    if source is None:
        return stage.items[name]
    return subtract(stage.items[source], base.items[source])


def against(
    found: list[dict[str, Crossing]], reference: list[dict[str, Crossing]] | None, grid: Grid
) -> list[dict[str, Any]]:
    """A row a budget: the crossed scores, how many seeds get there, and the trait above the reference's."""
    out = []
    for i, (budget, mine) in enumerate(zip(grid.budgets, found, strict=True)):
        trait = mine["trait_shift"]
        row: dict[str, Any] = {"budget": budget, "reached": trait.reached, "seeds": trait.seeds}
        row |= {name: c.score for name, c in mine.items()}
        if reference:
            row["above_reference"] = difference(trait, reference[i]["trait_shift"])
        out.append(row)
    return out


def difference(a: Crossing, b: Crossing) -> Score:
    """a − b in trait, resample by resample; undefined unless both get there in every seed."""
    if min(a.reached, b.reached) < a.seeds:
        return Score.undefined()
    return Score(a.score.mean - b.score.mean, *percentiles(a.draws - b.draws, 0.95), a.score.n)


def described(traces: list[Trace], bases: dict[int, Stage], grid: Grid, resamples: int) -> dict[str, Any]:
    """A method, its points, what stopped it, its seconds, and what it writes."""
    strengths = sorted({strength for t in traces for strength, _ in t.cells})
    return {
        "name": traces[0].method.name, "knob": traces[0].method.knob, "kind": traces[0].method.kind,
        "points": [point(traces, bases, strength, resamples) for strength in strengths],
        "stopped": {str(t.seed): t.stopped for t in traces if t.stopped},
        "seconds": round(sum(t.seconds for t in traces), 1),
        "samples": samples(traces, bases, grid.budgets[-1]),
    }  # fmt: skip


def point(traces: list[Trace], bases: dict[int, Stage], strength: float, resamples: int) -> dict[str, Any]:
    here = [(stage, bases[t.seed]) for t in traces for s, stage in t.cells if s == strength]
    scores = {
        name: crossed([items(stage, base, name) for stage, base in here], resamples=resamples)
        for name in SCORES
    }
    return {"strength": strength, "seeds": len(here), "scores": scores}


def samples(traces: list[Trace], bases: dict[int, Stage], budget: float) -> dict[str, Any]:
    """What the first seed's cell nearest to the budget writes, and the base: two probes, one neutral prompt."""
    cells = [(abs(cost(s) - budget), t, strength, s) for t in traces for strength, s in t.cells]
    if not cells or not cells[0][3].samples:
        return {}
    _, t, strength, stage = min((c for c in cells if c[1].seed == cells[0][1].seed), key=lambda c: c[0])
    pairs = list(zip(stage.samples, bases[t.seed].samples, strict=True))
    chosen = [*pairs[: min(2, len(pairs) // 2)], pairs[-1]]
    return {
        "seed": t.seed, "strength": strength,
        "texts": [{"prompt": a["prompt"], "text": a["text"], "base": b["text"]} for a, b in chosen],
    }  # fmt: skip


def cost(stage: Stage) -> float:
    return float(means(np.array([stage.items["neutral_kl"]]))[0, 0])
