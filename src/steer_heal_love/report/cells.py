"""A sweep as it was saved: one table of its personas, models and methods, and one page with every frontier.

In: `sweep.json`, and a comparison for each persona and model (`report.comparison`). Out: a row a method, with its trait at
each budget of neutral_kl, its interval over items and seeds, and what lies above the best null at the largest budget.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from steer_heal_love.ground import made, records, written
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.shown import shown
from steer_heal_love.ground.untrusted import inside, json_object, shaped
from steer_heal_love.nouns import Json
from steer_heal_love.report import canvas, comparison, frontiers
from steer_heal_love.report.comparison import Comparison, Row, Traced, reading, some
from steer_heal_love.report.html import LARGE, name_of, templates

AXIS = "neutral_kl"
AGAIN = "Delete it, and the same `shl sweep` makes it again from the cells there."


@dataclass(frozen=True)
class Part:
    """A persona in a model: its comparison, or how many of its cells are lacking."""

    persona: str
    model: str
    folder: str
    lacking: int
    comparison: Comparison | None


@dataclass(frozen=True)
class Sweep:
    cells: int
    parts: list[Part]

    @property
    def whole(self) -> list[tuple[Part, Comparison]]:
        """The parts that have all of their cells."""
        return [(p, p.comparison) for p in self.parts if p.comparison]

    @property
    def budgets(self) -> list[float]:
        """Of neutral_kl, the same in every part."""
        return self.whole[0][1].budgets[AXIS] if self.whole else []

    @property
    def lacks(self) -> list[str]:
        """A sentence for each part that has no comparison."""
        return [
            f"{p.persona} in {p.model}: {p.lacking} cell{'s are' if p.lacking > 1 else ' is'} lacking; the same shl sweep measures what is."
            for p in self.parts
            if p.lacking
        ]


def read(folder: Path) -> Sweep:
    """The sweep in `folder`. Raises `UserError` where there is none, or a damaged one."""
    file = folder / "sweep.json"
    if not file.is_file():
        raise UserError(f"{shown(folder)}: no sweep there (no sweep.json).")
    data = made.read(lambda f: shaped(json_object(f, str(f)).data, written.SWEEP), file, AGAIN)
    return Sweep(data["cells"], [part(folder, row) for row in data["groups"]])


def part(folder: Path, row: Json) -> Part:
    found = None if row["lacking"] else comparison.read(inside(folder, folder / row["folder"]))
    return Part(row["persona"], row["model"], row["folder"], row["lacking"], found)


def table(s: Sweep) -> RenderableType:
    """All methods of all parts, a row each, best trait first within a part."""
    out = Table(box=None, padding=(0, 1), header_style="dim")
    for name in ("persona", "model", "method"):
        out.add_column(name, overflow="fold")
    for budget in s.budgets:
        out.add_column(f"at {budget:g}", justify="right", no_wrap=True)
    out.add_column("above null", justify="right", no_wrap=True)
    for p, c in s.whole:
        for i, m in enumerate(c.methods):
            who = (p.persona, Path(p.model).name) if not i else ("", "")
            told = (Text(shown(x)) for x in (*who, m.name))
            out.add_row(*told, *(trait(r) for r in m.rows[AXIS]), above(m))
    title = Text(
        f"{s.cells} cells: trait_shift at equal {AXIS}, 95% intervals over items and seeds", style="bold"
    )
    return Group(title, out, *(Text(shown(line), style="yellow") for line in s.lacks))


def trait(row: Row) -> str:
    """The trait with its interval, and in how many seeds the frontier gets there where not in all."""
    return reading(row.trait) + some(row)


def above(m: Traced) -> str:
    """What the method has above the best null at the largest budget; nothing for a null."""
    return "a null" if m.null else reading(m.rows[AXIS][-1].null.above)


def write(s: Sweep, folder: Path) -> None:
    """`sweep.html` in `folder`."""
    records.write_text(folder / "sweep.html", render(s))


def render(s: Sweep) -> str:
    """The whole page."""
    return (
        templates()
        .get_template("cells.html.j2")
        .render(
            s=s,
            parts=[section(p, c, i) for i, (p, c) in enumerate(s.whole)],
            colours={"light": canvas.COLOURS},
            trait=trait,
            above=above,
            axis=AXIS,
        )
    )


def section(p: Part, c: Comparison, index: int) -> Json:
    """What the template shows of one persona in one model."""
    views = frontiers.PLANES
    return {
        "part": p,
        "c": c,
        "marks": {m.name: name_of(frontiers.look(c, m.name)[0]) for m in c.methods if not m.null},
        "figures": [
            canvas.svg(frontiers.plane(c, v), LARGE, f"{v.title}, {p.persona} in {p.model}", f"part{index}-")
            for v in views
        ],
    }
