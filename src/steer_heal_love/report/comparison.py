"""A comparison as it was saved, and its table on one screen.

In: `compare.json`. Out: methods in the order of their trait at the largest budget, and a rich table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from steer_heal_love.ground import records
from steer_heal_love.ground.errors import UserError
from steer_heal_love.nouns import Score
from steer_heal_love.report.read import number
from steer_heal_love.report.screen import interval, plain


@dataclass(frozen=True)
class Point:
    """One strength of a method, over the seeds that have it."""

    strength: float
    seeds: int
    scores: dict[str, Score]


@dataclass(frozen=True)
class Row:
    """A method at one budget; `reached` of `seeds` frontiers get there."""

    budget: float
    reached: int
    seeds: int
    trait: Score
    odd: Score
    above: Score


@dataclass(frozen=True)
class Traced:
    """A method: its frontier, its rows, why it stopped in which seed, and what it writes."""

    name: str
    knob: str
    kind: str
    points: list[Point]
    rows: list[Row]
    stopped: dict[str, str]
    seconds: float
    samples: dict[str, Any]

    @property
    def single(self) -> bool:
        """Whether there is no knob to trace a frontier with."""
        return len(self.points) == 1

    def drawn(self, row: Row) -> bool:
        """Whether the row is read on the line from the base to the first point, and nothing lies on that line: a
        dose or a scale can be smaller, a prompt can't."""
        return (
            self.kind == "prompt"
            and bool(self.points)
            and self.points[0].scores["neutral_kl"].mean > row.budget
        )

    @property
    def starred(self) -> bool:
        """Whether any row is such a one."""
        return any(map(self.drawn, self.rows))


@dataclass(frozen=True)
class Comparison:
    persona: str
    model: str
    seeds: list[int]
    reference: str
    budgets: list[float]
    methods: list[Traced]

    @property
    def columns(self) -> list[str]:
        """Every score that a point has."""
        return list(dict.fromkeys(n for m in self.methods for p in m.points for n in p.scores))


def read(folder: Path) -> Comparison:
    """The comparison in `folder`. Raises `UserError` when there is none."""
    file = folder / "compare.json"
    if not file.is_file():
        raise UserError(f"{folder}: no comparison there (no compare.json).")
    data = records.read_json(file)
    methods = sorted(map(traced, data["methods"]), key=rank)
    return Comparison(
        data["persona"], data["model"], data["seeds"], data["reference"], data["budgets"], methods
    )


def rank(m: Traced) -> list[float]:
    """Most trait at the largest budget first, then at the next; the undefined last."""
    return [-r.trait.mean if math.isfinite(r.trait.mean) else math.inf for r in reversed(m.rows)]


def traced(m: dict[str, Any]) -> Traced:
    points = [
        Point(p["strength"], p["seeds"], {n: score_of(s) for n, s in p["scores"].items()})
        for p in m["points"]
    ]
    rows = [
        Row(r["budget"], r["reached"], r["seeds"], score_of(r["trait_shift"]), score_of(r["own_excess"]),
            score_of(r.get("above_reference")))
        for r in m["at"]
    ]  # fmt: skip
    return Traced(
        m["name"], m["knob"], m.get("kind", ""), points, rows, m["stopped"], m["seconds"], m["samples"]
    )


def score_of(saved: dict[str, Any] | None) -> Score:
    """A score, null read back as NaN; undefined where none was saved."""
    if saved is None:
        return Score.undefined()
    return Score(number(saved["mean"]), number(saved["lo"]), number(saved["hi"]), saved["n"])


def table(c: Comparison) -> RenderableType:
    """Trait at each budget, a dash where a method never gets there; own_excess at the largest."""
    out = Table(box=None, padding=(0, 1), header_style="dim")
    out.add_column("method", no_wrap=True)
    for budget in c.budgets:
        out.add_column(f"at {budget:g}", justify="right", no_wrap=True)
    out.add_column("own_excess", justify="right", no_wrap=True)
    for m in c.methods:
        cells = [interval(r.trait, ".2f") + some(r) for r in m.rows]
        out.add_row(m.name + " *" * m.starred, *cells, plain(m.rows[-1].odd.mean, "+.2f"))
    title = f"{c.persona} in {c.model}, {len(c.seeds)} seed{'s' * (len(c.seeds) > 1)}: trait_shift at equal neutral_kl"
    notes = [f"{m.name}, seed {seed}: {reason}" for m in c.methods for seed, reason in m.stopped.items()]
    if any(m.starred for m in c.methods):
        notes.append("* its least prompt is dearer: a line from the base, which no model realises")
    return Group(Text(title, style="bold"), out, *(Text(n, style="yellow") for n in notes))


def some(row: Row) -> str:
    """How many seeds get there, where not all do."""
    return f" ({row.reached}/{row.seeds} seeds)" if 0 < row.reached < row.seeds else ""
