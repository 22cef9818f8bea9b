"""A comparison's page and its plot; what models wrote passes through the template's autoescape."""

from __future__ import annotations

from pathlib import Path

from steer_heal_love.ground import records
from steer_heal_love.ground.declared import signed
from steer_heal_love.report import above, canvas, frontiers
from steer_heal_love.report.comparison import Comparison, caveat, sentences
from steer_heal_love.report.html import LARGE, name_of, templates


def write(c: Comparison, folder: Path) -> None:
    """`compare.html` and `frontier.png` in `folder`."""
    canvas.png([frontiers.plane(c, v) for v in frontiers.PLANES], (5.4, 4.4), folder / "frontier.png")
    records.write_text(folder / "compare.html", render(c))


def render(c: Comparison) -> str:
    """The whole page."""
    figures = [canvas.svg(frontiers.plane(c, v), LARGE, f"{v.title}, all methods") for v in frontiers.PLANES]
    marks = {m.name: name_of(frontiers.look(c, m.name)[0]) for m in c.methods if not m.null}
    page = templates().get_template("comparison.html.j2")
    return page.render(
        c=c,
        figures=figures,
        marks=marks,
        columns=[(n, signed(n)) for n in c.columns],
        colours={"light": canvas.COLOURS},
        nulls=above.measured(c),
        headline=above.headline(c),
        null_caveat=above.caveat(c),
        caveat=caveat(c),
        sentences={axis: sentences(c, axis) for axis in c.budgets},
        starred=any(m.starred(axis) for m in c.methods for axis in c.budgets),
    )
