"""Every method's frontier: trait against what it costs, from the base through rising strengths."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator

from steer_heal_love.report.canvas import FIFTH, FOURTH, HEALED, INK, MUTED, PROMPT, STEERED, Draw
from steer_heal_love.report.comparison import Comparison, Point, Traced
from steer_heal_love.report.trajectory import VIEWS, View, frame, spread

LOOKS = tuple(
    (colour, mark, line)
    for line, marks in (("-", "osDv"), ((0, (4, 2)), "^PX*"))
    for colour, mark in zip((HEALED, STEERED, PROMPT, FOURTH, FIFTH, INK), marks + marks, strict=False)
)
"""colour, mark and line: told apart by two of the three"""
PLANES = VIEWS[:2]
TICKS = (0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)


def look(c: Comparison, name: str) -> tuple[str, str, object]:
    """The same for a method in every figure, whatever its rank."""
    colour, mark, line = LOOKS[sorted(m.name for m in c.methods).index(name) % len(LOOKS)]
    return colour, mark, line


def plane(c: Comparison, view: View) -> Draw:
    """All methods in one plane, neutral_kl by its root; budgets as thin lines."""

    def draw(axes: Axes) -> None:
        frame(axes, view)
        if view.x == "neutral_kl":
            rooted(
                axes,
                c.budgets["neutral_kl"],
                max([p.scores[view.x].mean for m in c.methods for p in m.points], default=0.0),
            )
        for budget in c.budgets[view.x]:
            axes.axvline(budget, color=MUTED, linestyle=(0, (1, 2)), linewidth=1.2)
        for m in c.methods:
            path(axes, c, m, view)

    return draw


def rooted(axes: Axes, budgets: list[float], top: float) -> None:
    """Linear in √KL, in which an update's effect is nearly a straight line."""
    axes.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0.0)), np.square))
    axes.set_xlim(0, max(1.1 * top, 1.2 * max(budgets)))
    axes.xaxis.set_major_locator(FixedLocator([t for t in TICKS if t <= axes.get_xlim()[1]]))
    axes.xaxis.set_major_formatter(lambda v, _: f"{v:g}")


def path(axes: Axes, c: Comparison, m: Traced, view: View) -> None:
    """Base, then the points in rising strength, each with its intervals over items × seeds."""
    colour, mark, line = look(c, m.name)
    points = [p for p in m.points if math.isfinite(sum(xy(p, view)))]
    if not points:
        return
    x, y = zip((0.0, 0.0), *(xy(p, view) for p in points), strict=True)
    axes.plot(x, y, color=colour, linestyle=(0, (1, 3)) if m.single else line, linewidth=1.1, zorder=3)
    axes.plot(x[1:], y[1:], mark, color=colour, markersize=5, zorder=4, label=m.name, linestyle="none")
    for p in points:
        axes.errorbar(
            *xy(p, view), xerr=spread(p.scores[view.x]), yerr=spread(p.scores[view.y]), fmt="none",
            ecolor=colour, elinewidth=0.8, alpha=0.45, zorder=2,
        )  # fmt: skip


def xy(p: Point, view: View) -> tuple[float, float]:
    return p.scores[view.x].mean, p.scores[view.y].mean
