"""A matrix of targets and personas for rich's console: trait_shift a cell, in brackets where it can't be told from zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from steer_heal_love.ground.shown import shown
from steer_heal_love.nouns import Score
from steer_heal_love.report.words import interval, num

SAYS = (
    "trait_shift in nats per token on each persona's probes; in brackets where its interval, one of all cells', holds zero. "
    "own less others: the shift on its own persona's probes less that on all others'."
)


def table(rows: Sequence[Any]) -> RenderableType:
    """`rows` are those of `certify.matrix`."""
    shows = Table("model", *(rows[0].cells if rows else ()), "own less others", title="Whose trait moved?")
    for row in rows:
        cells = [Text(cell(s), style="bold" if who == row.persona else "") for who, s in row.cells.items()]
        shows.add_row(Text(shown(row.target)), *cells, Text(interval(row.own_less_others, 2)))
    return Group(shows, Text(SAYS, style="dim"))


def cell(scores: Mapping[str, Score]) -> str:
    """The shift, bracketed where it can't be told from zero; a dash where it was not measured."""
    s = scores.get("trait_shift", Score.undefined())
    said = num(s.mean, 2)
    return said if s.lo > 0 or s.hi < 0 else f"({said})"
