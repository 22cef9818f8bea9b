"""What the methods of a comparison have above the best null at equal neutral_kl: in words, and as a table.

A null has no idea of the trait (`compare.best`), so what lies above it is what a method is about. Beside it stand both
halves of the trait: trait_pos, how much likelier the pos answers became, and trait_neg, how much less likely the neg.
"""

from __future__ import annotations

import math

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from steer_heal_love.nouns import Score
from steer_heal_love.report.comparison import Comparison, Row, Traced, few, reading

AXIS = "neutral_kl"
STARRED = "* Read on a line from the base to its least prompt, which no model realises."


def measured(c: Comparison) -> bool:
    """Whether any null was measured with them."""
    return any(r.null.name for m in c.methods for r in m.rows[AXIS])


def headline(c: Comparison) -> list[str]:
    """A sentence a budget: the best null, and which methods lie above it, below it, or can't be told from it."""
    if not measured(c):
        return []
    return [said(c, i, budget) for i, budget in enumerate(c.budgets[AXIS])]


def said(c: Comparison, i: int, budget: float) -> str:
    rows = [(m, m.rows[AXIS][i]) for m in c.methods if not m.null]
    null = c.methods[0].rows[AXIS][i].null
    if not null.name:
        return f"At neutral_kl {budget:g} no null gets there in every seed, so nothing is set above one."
    what = (
        "doing nothing, since every null loses trait"
        if null.name == "base"
        else f"{null.name} ({reading(null.trait)})"
    )
    groups = {
        "above it": [
            f"{named(m, r)} {reading(r.null.above)}{halves(r)}" for m, r in rows if r.null.verdict == "ahead"
        ],
        "below it": [
            f"{named(m, r)} {reading(r.null.above)}{halves(r)}" for m, r in rows if r.null.verdict == "behind"
        ],
        "not told apart from it": [named(m, r) for m, r in rows if r.null.verdict == "not told apart"],
        "without a value": [m.name for m, r in rows if not r.null.verdict],
    }
    told = "; ".join(f"{where}: {', '.join(names)}" for where, names in groups.items() if names)
    whole = f"At neutral_kl {budget:g} the best null is {what}; {told or 'nothing is set against it'}."
    return f"{whole} {STARRED}" if any(m.drawn(r) for m, r in rows) else whole


def named(m: Traced, row: Row) -> str:
    """The method's name, starred where the row is no model."""
    return f"{m.name}*" if m.drawn(row) else m.name


def halves(row: Row) -> str:
    """The two halves, where they were measured."""
    pos, neg = row.null.pos, row.null.neg
    return f" (pos {pos.mean:+.2f}, neg {neg.mean:+.2f})" if math.isfinite(pos.mean + neg.mean) else ""


def caveat(c: Comparison) -> str:
    return (
        "The best null is the one with the most trait at that budget, as measured. The interval accounts for that choice: above and "
        f"below hold for all {c.null_comparisons} differences (methods × nulls × budgets) together, with 95%."
        + few(c, c.null_comparisons)
    )


def table(c: Comparison) -> list[RenderableType]:
    """The headline, and under it a row a method: trait above the best null at each budget, and both halves at the last."""
    if not measured(c):
        return []
    out = Table(box=None, padding=(0, 1), header_style="dim")
    out.add_column("above the best null", no_wrap=True)
    for budget in c.budgets[AXIS]:
        out.add_column(f"at {budget:g}", justify="right", no_wrap=True)
    for name in ("trait_pos", "trait_neg"):
        out.add_column(name, justify="right", no_wrap=True)
    for m in (m for m in c.methods if not m.null):
        out.add_row(Text(m.name), *(reading(r.null.above) for r in m.rows[AXIS]), *map(half, last(m)))
    return [out, *(Text(line) for line in headline(c)), Text(caveat(c), style="yellow")]


def last(m: Traced) -> tuple[Score, Score]:
    """Both halves at the largest budget."""
    null = m.rows[AXIS][-1].null
    return null.pos, null.neg


def half(s: Score) -> str:
    return f"{s.mean:+.2f}" if math.isfinite(s.mean) else "–"
