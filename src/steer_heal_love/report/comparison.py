"""A comparison as it was saved, and what it says in words.

In: `compare.json`. Out: methods in the order of their trait at the largest budget of neutral_kl; which are ahead of the
reference, behind it, or not told apart from it. `comparison_table` shows it on one screen, `comparison_html` as a page.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from steer_heal_love.ground import made, records, written
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.stats import LEVEL, corrected, t_quantile
from steer_heal_love.ground.untrusted import shaped
from steer_heal_love.nouns import Json, Score
from steer_heal_love.report.read import number
from steer_heal_love.report.screen import interval

AXES = {"neutral_kl": ("budgets", "at"), "own_excess": ("own_excess_budgets", "at_own_excess")}
"""axes of coherence, with the names of their budgets and rows in the file"""


AGAIN = "Delete it, and the same `shl compare` makes it again from the cells there."


@dataclass(frozen=True)
class Point:
    """One strength of a method, over the seeds that have it; `own` of them have it as the method's own default."""

    strength: float
    seeds: int
    scores: dict[str, Score]
    own: int = 0


UNTOLD = "not told apart"


@dataclass(frozen=True)
class Null:
    """A method at one budget of neutral_kl against the best null there: which that is and its trait, what is above it,
    its interval one of all comparisons and as the only comparison, the verdict, and the method's own two halves of the trait."""

    name: str
    trait: Score
    above: Score
    alone: Score
    verdict: str
    pos: Score
    neg: Score


@dataclass(frozen=True)
class Row:
    """A method at one budget of an axis; `reached` of `seeds` frontiers get there. `above` is its trait over the
    reference's, its interval one of all comparisons, and `alone` that as the only comparison."""

    axis: str
    budget: float
    reached: int
    seeds: int
    trait: Score
    odd: Score
    above: Score
    alone: Score
    verdict: str
    verdict_alone: str
    null: Null

    @property
    def standing(self) -> str:
        """The verdict, and what it would be as the only comparison where all comparisons together don't say so."""
        if self.verdict == UNTOLD != self.verdict_alone:
            return f"{self.verdict_alone} as the only comparison"
        return self.verdict or "undefined"


@dataclass(frozen=True)
class Traced:
    """A method: its frontier, its rows, why it stopped in which seed, and what it writes."""

    name: str
    knob: str
    kind: str
    points: list[Point]
    rows: dict[str, list[Row]]
    stopped: dict[str, str]
    seconds: float
    samples: Json
    null: bool = False

    @property
    def single(self) -> bool:
        """Whether there is no knob to trace a frontier with."""
        return len(self.points) == 1

    def drawn(self, row: Row) -> bool:
        """Whether the row is read on the line from the base to the first point, and nothing lies on that line: a
        dose or a scale can be smaller, a prompt can't."""
        return (
            self.kind == "prompt" and bool(self.points) and self.points[0].scores[row.axis].mean > row.budget
        )

    def starred(self, axis: str) -> bool:
        """Whether any row is such a one."""
        return any(map(self.drawn, self.rows[axis]))


@dataclass(frozen=True)
class Comparison:
    persona: str
    model: str
    seeds: list[int]
    reference: str
    comparisons: int
    budgets: dict[str, list[float]]
    methods: list[Traced]
    null_comparisons: int = 0

    @property
    def undefined(self) -> Score:
        """Where a point has no such score."""
        return Score.undefined()

    @property
    def columns(self) -> list[str]:
        """Every score that a point has."""
        return list(dict.fromkeys(n for m in self.methods for p in m.points for n in p.scores))

    def standings(self, axis: str) -> list[tuple[float, dict[str, list[str]]]]:
        """By budget: which methods are ahead of the reference, behind it, not told apart from it."""
        out = []
        for i, budget in enumerate(self.budgets[axis]):
            groups: dict[str, list[str]] = {}
            for m in self.methods:
                if m.name != self.reference and not m.null:
                    groups.setdefault(m.rows[axis][i].standing, []).append(m.name)
            out.append((budget, dict(sorted(groups.items()))))
        return out

    @property
    def compared(self) -> bool:
        """Whether the reference is one of the methods."""
        return any(m.name == self.reference for m in self.methods)


def read(folder: Path) -> Comparison:
    """The comparison in `folder`. Raises `UserError` when there is none, or one by an earlier version."""
    file = folder / "compare.json"
    if not file.is_file():
        raise UserError(f"{folder}: no comparison there (no compare.json).")
    data = written.renamed(made.read(comparable, file, AGAIN))
    if missing := [name for names in AXES.values() for name in names[:1] if name not in data]:
        raise UserError(
            f"{file}: by an earlier version (no {', '.join(missing)}), with intervals that three seeds don't bear out. "
            "The same shl compare makes it anew from the cells there, and measures nothing again."
        )
    made.read(lambda _: whole(shaped(data, written.COMPARISON)), file, AGAIN)
    methods = sorted(map(traced, data["methods"]), key=rank)
    budgets = {axis: data[name] for axis, (name, _) in AXES.items()}
    return Comparison(
        data["persona"],
        data["model"],
        data["seeds"],
        data["reference"],
        data["comparisons"],
        budgets,
        methods,
        data.get("null_comparisons", 0),
    )


def comparable(path: Path) -> Json:
    return shaped(records.read_json(path), dict)  # type: ignore[no-any-return]


def whole(data: Json) -> None:
    """Raise `ValueError` where a method has not a row for every budget, or a budget is none."""
    for budgets, rows in AXES.values():
        if not data[budgets] or min(data[budgets]) <= 0:
            raise ValueError(f"{budgets}: expected numbers above 0")
        if short := [m["name"] for m in data["methods"] if len(m[rows]) != len(data[budgets])]:
            raise ValueError(f"methods: {short[0]!r:.60} has not a row of {rows} for every budget")


def rank(m: Traced) -> list[float]:
    """Most trait at the largest budget of neutral_kl first, then at the next; the undefined last."""
    return [
        -r.trait.mean if math.isfinite(r.trait.mean) else math.inf for r in reversed(m.rows["neutral_kl"])
    ]


def traced(m: Json) -> Traced:
    points = [
        Point(
            p["strength"],
            p["seeds"],
            {n: score_of(s) for n, s in p["scores"].items()},
            p.get("own_default", 0),
        )
        for p in m["points"]
    ]
    rows = {axis: [row(axis, r) for r in m[name]] for axis, (_, name) in AXES.items()}
    return Traced(
        m["name"],
        m["knob"],
        m.get("kind", ""),
        points,
        rows,
        m["stopped"],
        m["seconds"],
        m["samples"],
        m.get("null", False),
    )


def row(axis: str, r: Json) -> Row:
    return Row(
        axis,
        r["budget"],
        r["reached"],
        r["seeds"],
        score_of(r["trait_shift"]),
        score_of(r.get("own_excess")),
        score_of(r.get("above_reference")),
        score_of(r.get("above_reference_alone")),
        untold(r.get("verdict")),
        untold(r.get("verdict_alone")),
        null(r),
    )


def untold(verdict: str | None) -> str:
    """The verdict as it is called now; "level" in files of earlier versions claimed more than it knew."""
    return UNTOLD if verdict == "level" else verdict or ""


def null(r: Json) -> Null:
    saved = lambda name: score_of(r.get(name))
    return Null(
        r.get("best_null") or "",
        saved("null_trait"),
        saved("above_null"),
        saved("above_null_alone"),
        untold(r.get("null_verdict")),
        saved("trait_pos"),
        saved("trait_neg"),
    )


def score_of(saved: Json | None) -> Score:
    """A score, null read back as NaN; undefined where none was saved."""
    if saved is None:
        return Score.undefined()
    return Score(number(saved["mean"]), number(saved["lo"]), number(saved["hi"]), saved["n"])


def sentences(c: Comparison, axis: str) -> list[str]:
    """A line a budget."""
    return [
        f"{axis} {budget:g}, against {c.reference}: "
        + "; ".join(f"{standing}: {', '.join(names)}" for standing, names in groups.items())
        for budget, groups in c.standings(axis)
    ]


def caveat(c: Comparison) -> str:
    return (
        f"Ahead and behind hold for all {c.comparisons} differences together, with 95%. Not told apart: the interval of the "
        f"difference holds 0; {len(c.seeds)} seed{'s' * (len(c.seeds) > 1)} can't tell, which isn't to be equal."
        + few(c, c.comparisons)
    )


def few(c: Comparison, comparisons: int) -> str:
    """What few seeds do to an interval: the factor by which it takes their spread."""
    if len(c.seeds) < 2 or (t := t_quantile((1 + corrected(LEVEL, comparisons)) / 2, len(c.seeds) - 1)) < 5:
        return ""
    return (
        f" With so few seeds their standard error counts {t:.0f} times, so what is ahead or behind is so where the seeds "
        "happen to lie close together; more seeds are what tells."
    )


def reading(s: Score) -> str:
    """Mean and interval; an end past the strongest cell is left open."""
    if math.isfinite(s.lo) and not math.isfinite(s.hi):
        return f"{s.mean:+.2f} [{s.lo:+.2f}, …]" if math.isfinite(s.mean) else f"≥ {s.lo:+.2f}"
    return interval(s, ".2f")


def some(row: Row) -> str:
    """How many seeds get there, where not all do."""
    return f" ({row.reached}/{row.seeds} seeds)" if 0 < row.reached < row.seeds else ""
