"""A matrix of targets and personas for rich's console, narrow enough for 80 columns with eight of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from steer_heal_love.ground.shown import shown
from steer_heal_love.nouns import Score
from steer_heal_love.report.words import interval, num

SAYS = (
    "trait_shift in nats per token on each persona's probes. * its interval, one of all cells', leaves out zero. "
    "own less others: the shift on its own persona's probes less that on all others'."
)


def table(rows: Sequence[Any]) -> RenderableType:
    """`rows` are those of `certify.matrix`."""
    whose = list(rows[0].cells) if rows else []
    labels = named(rows)
    shifts = Table(title="Whose trait moved?", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    shifts.add_column("model", overflow="fold")
    for i in range(1, len(whose) + 1):
        shifts.add_column(str(i), justify="right", no_wrap=True)
    own = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for head in ("model", "own less others", "where"):
        own.add_column(head, overflow="fold")
    for label, row in zip(labels, rows, strict=True):
        cells = [Text(cell(s), style="bold" if who == row.persona else "") for who, s in row.cells.items()]
        shifts.add_row(Text(label), *cells)
        own.add_row(Text(label), Text(interval(row.own_less_others, 2)), Text(shown(row.target)))
    key = Text("probes of " + ", ".join(f"{i} {who}" for i, who in enumerate(whose, 1)))
    return Group(shifts, key, Text(), own, Text(), Text(SAYS, style="dim"))


def named(rows: Sequence[Any]) -> list[str]:
    """A short name a row, its persona or `model`; with its number where several have it. The path stands beside it."""
    short = [shown(row.persona or "model") for row in rows]
    often = Counter(short)
    return [f"{s} {i}" if often[s] > 1 else s for i, s in enumerate(short, 1)]


def cell(scores: Mapping[str, Score]) -> str:
    """The shift, starred where it can be told from zero; a dash where it was not measured."""
    s = scores.get("trait_shift", Score.undefined())
    return num(s.mean, 2) + ("*" if s.lo > 0 or s.hi < 0 else " ")
