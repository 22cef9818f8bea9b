"""Every method's frontier: trait against what it costs, from the base through rising strengths; the nulls in grey, and
over neutral_kl the area under the best of them."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator

from steer_heal_love.report.canvas import FIFTH, FOURTH, HEALED, INK, MUTED, PROMPT, STEERED, Draw
from steer_heal_love.report.comparison import Comparison, Point, Traced
from steer_heal_love.report.trajectory import VIEWS, View, frame, spread

STYLES = tuple(
    (colour, mark, line)
    for line, marks in (
        ("-", "osDv"),
        ((0, (4, 2)), "^PX*"),
        ((0, (1, 1.5)), "<>hp"),
        ((0, (5, 1.5, 1, 1.5)), "dH84"),
    )
    for colour, mark in zip((HEALED, STEERED, PROMPT, FOURTH, FIFTH, INK), marks + marks, strict=False)
)
"""colour, mark and line: told apart by two of the three"""
PLANES = VIEWS[:2]
CURVE = 200
"""points of the best null's line"""
FAR = 4
"""how many times the largest budget an axis goes"""
TICKS = (0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)


def look(c: Comparison, name: str) -> tuple[str, str, object]:
    """The same for a method in every figure, whatever its rank."""
    colour, mark, line = STYLES[sorted(m.name for m in c.methods if not m.null).index(name) % len(STYLES)]
    return colour, mark, line


def plane(c: Comparison, view: View) -> Draw:
    """All methods in one plane, neutral_kl by its root; budgets as thin lines."""

    def draw(axes: Axes) -> None:
        frame(axes, view)
        if view.x == "neutral_kl":
            rooted(axes)
        for budget in c.budgets[view.x]:
            axes.axvline(budget, color=MUTED, linestyle=(0, (1, 2)), linewidth=1.2)
        nulls = [m for m in c.methods if m.null]
        if view.x == "neutral_kl":
            best(axes, nulls, view, FAR * max(c.budgets[view.x]))
        for m in nulls:
            grey(axes, m, view)
        for m in c.methods:
            if not m.null:
                path(axes, c, m, view)
        near(axes, [xy(p, view) for m in c.methods for p in m.points], FAR * max(c.budgets[view.x]))

    return draw


def best(axes: Axes, nulls: list[Traced], view: View, far: float) -> None:
    """The most trait that any null has at each neutral_kl, filled down to none; never less than the base's."""
    root = np.linspace(0.0, math.sqrt(far), CURVE)
    heights = [h for m in nulls if (h := along(m, view, root)) is not None]
    if not heights:
        return
    top = np.fmax(np.fmax.reduce(heights), 0.0)
    axes.fill_between(root**2, 0.0, top, color=MUTED, alpha=0.18, linewidth=0, zorder=1)
    axes.plot(root**2, top, color=MUTED, linewidth=1.6, zorder=2, label="best null")


def along(m: Traced, view: View, root: np.ndarray) -> np.ndarray | None:
    """A null's trait where it first has each cost, linear in its root; NaN past its strongest cell."""
    points = [(0.0, 0.0), *(p for p in (xy(p, view) for p in m.points) if math.isfinite(sum(p)))]
    rising = [p for i, p in enumerate(points) if all(p[0] > q[0] for q in points[:i])]
    if len(rising) < 2:
        return None
    x, y = np.array(rising).T
    return np.interp(root, np.sqrt(x), y, right=np.nan)


def grey(axes: Axes, m: Traced, view: View) -> None:
    """A null: a thin line through its points."""
    points = [(0.0, 0.0), *(p for p in (xy(p, view) for p in m.points) if math.isfinite(sum(p)))]
    axes.plot(*zip(*points, strict=True), ".-", color=MUTED, linewidth=0.7, markersize=3, zorder=2)


def rooted(axes: Axes) -> None:
    """Linear in √KL, in which an update's effect is nearly a straight line."""
    axes.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0.0)), np.square))
    axes.xaxis.set_major_locator(FixedLocator(TICKS))
    axes.xaxis.set_major_formatter(lambda v, _: f"{v:g}")


def near(axes: Axes, points: list[tuple[float, float]], far: float) -> None:
    """Limits by what lies up to `far` on x, so that the strongest doses don't flatten the rest; a note counts those beyond."""
    finite = [p for p in points if math.isfinite(sum(p))]
    shown = [p for p in finite if p[0] <= far] or [(0.0, 0.0)]
    xs, ys = ([0.0, *side] for side in zip(*shown, strict=True))
    axes.set_xlim(min(xs) - (0.05 * far if min(xs) < 0 else 0), far)
    height = max(ys) - min(ys) or 1.0
    axes.set_ylim(min(ys) - 0.15 * height, max(ys) + 0.3 * height)
    if beyond := len(finite) - sum(p[0] <= far for p in finite):
        note = f"{beyond} stronger point{'s' if beyond > 1 else ''} beyond"
        axes.annotate(note, (0.98, 0.02), xycoords="axes fraction", ha="right", color=MUTED, fontsize="small")


def path(axes: Axes, c: Comparison, m: Traced, view: View) -> None:
    """Base, then the points in rising strength, each with its intervals over items × seeds."""
    colour, mark, line = look(c, m.name)
    points = [p for p in m.points if math.isfinite(sum(xy(p, view)))]
    if not points:
        return
    x, y = zip((0.0, 0.0), *(xy(p, view) for p in points), strict=True)
    axes.plot(x, y, color=colour, linestyle=(0, (1, 3)) if m.single else line, linewidth=1.1, zorder=3)
    axes.plot(x[1:], y[1:], mark, color=colour, markersize=5, zorder=4, label=m.name, linestyle="none")
    own = [xy(p, view) for p in points if p.own]
    if own:
        axes.plot(
            *zip(*own, strict=True),
            "o",
            color=colour,
            markersize=10,
            fillstyle="none",
            zorder=4,
            linestyle="none",
        )
    for p in points:
        axes.errorbar(
            *xy(p, view),
            xerr=spread(p.scores[view.x]),
            yerr=spread(p.scores[view.y]),
            fmt="none",
            ecolor=colour,
            elinewidth=0.8,
            alpha=0.45,
            zorder=2,
        )


def xy(p: Point, view: View) -> tuple[float, float]:
    return p.scores[view.x].mean, p.scores[view.y].mean
