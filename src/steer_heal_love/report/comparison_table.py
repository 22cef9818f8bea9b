"""A comparison on one screen: a table for each axis of coherence, what is above the best null (`above`), every method at its
own default, and what one has to know to read them."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from steer_heal_love.ground.shown import shown
from steer_heal_love.nouns import Score
from steer_heal_love.report import above
from steer_heal_love.report.comparison import AXES, Comparison, caveat, reading, sentences, some
from steer_heal_love.report.screen import plain


def table(c: Comparison) -> RenderableType:
    """For each axis: trait at its budgets, a dash where a method never gets there, and who is ahead of whom."""
    title = f"{c.persona} in {c.model}, {len(c.seeds)} seed{'s' * (len(c.seeds) > 1)}: trait_shift at equal"
    parts: list[RenderableType] = []
    for axis, budgets in c.budgets.items():
        out = Table(box=None, padding=(0, 1), header_style="dim")
        out.add_column("method", no_wrap=True)
        for budget in budgets:
            out.add_column(f"at {budget:g}", justify="right", no_wrap=True)
        if axis == "neutral_kl":
            out.add_column("own_excess", justify="right", no_wrap=True)
        for m in c.methods:
            rows = m.rows[axis]
            odd = [plain(rows[-1].odd.mean, "+.2f")] if axis == "neutral_kl" else []
            out.add_row(
                Text(shown(m.name + " *" * m.starred(axis))),
                *(reading(r.trait) + some(r) for r in rows),
                *odd,
            )
        parts += [Text(f"{title} {axis}", style="bold"), out]
        if c.compared:
            parts += [Text(line) for line in sentences(c, axis)]
        if axis == "neutral_kl":
            parts += above.table(c)
    parts += defaults(c)
    notes = [f"{m.name}, seed {seed}: {reason}" for m in c.methods for seed, reason in m.stopped.items()]
    if any(m.starred(axis) for m in c.methods for axis in AXES):
        notes.append("* its least prompt is dearer: a line from the base, which no model realises")
    if c.compared:
        notes.append(caveat(c))
    return Group(*parts, *(Text(n, style="yellow") for n in notes))


OWN = ("trait_shift", "neutral_kl", "own_excess")
"""what is said of a method at its own default"""


def defaults(c: Comparison) -> list[RenderableType]:
    """Every method where it would itself stop, whatever that costs; nothing where no file says which strength that is."""
    rows = [(m, p) for m in c.methods for p in m.points if p.own]
    if not rows:
        return []
    out = Table(box=None, padding=(0, 1), header_style="dim")
    out.add_column("method", no_wrap=True)
    for name in OWN:
        out.add_column(name, justify="right", no_wrap=True)
    for m, p in rows:
        seeds = f", {p.own} of {len(c.seeds)} seeds" if p.own < len(c.seeds) else ""
        trait, *costs = (p.scores.get(name, Score.undefined()) for name in OWN)
        drawn = (plain(cost.mean, "+.3f") for cost in costs)
        out.add_row(Text(f"{shown(m.name)} at {p.strength:g}{seeds}"), reading(trait), *drawn)
    return [Text("Each method at its own default strength, at whatever that costs", style="bold"), out]
