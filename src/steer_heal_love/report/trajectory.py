"""Where a run went: trait against its cost, and two moral foundations; nodes in the order of the rounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch

from steer_heal_love.nouns import Score, Stage
from steer_heal_love.report.canvas import FIFTH, FOURTH, HEALED, INK, MUTED, PAPER, PROMPT, STEERED, Draw
from steer_heal_love.report.read import RunRecord, score

CROWDED = 9
"""nodes past which arrows step back behind them"""
RUNS = (HEALED, STEERED, PROMPT, FOURTH, FIFTH, INK)


@dataclass(frozen=True)
class View:
    """Which score lies on which axis."""

    x: str
    y: str
    title: str
    x_label: str
    y_label: str


VIEWS = (
    View(
        "neutral_kl",
        "trait_shift",
        "Trait against drift on neutral prompts",
        "neutral_kl (nats/token)",
        "trait_shift (nats/token)",
    ),
    View(
        "own_excess",
        "trait_shift",
        "Trait against oddness of its own text",
        "own_excess (nats/token)",
        "trait_shift (nats/token)",
    ),
    View(
        "mfv.Authority",
        "mfv.Care",
        "Moral foundations: Authority and Care",
        "Authority, shift from base (nats)",
        "Care, shift from base (nats)",
    ),
)


FORCED = (
    View(
        "mfv_fc.Authority",
        "mfv_fc.Care",
        "Forced choice: Authority and Care",
        "Authority, shift from base (nats)",
        "Care, shift from base (nats)",
    ),
    View(
        "tinymfv.Authority",
        "tinymfv.Care",
        "tinymfv: Authority and Care",
        "Authority, shift from base (nats)",
        "Care, shift from base (nats)",
    ),
)
"""the same axes where an option had to be chosen, with the panels of row `format` below them"""


def measured(runs: list[RunRecord], view: View) -> bool:
    """Whether any stage has both of the view's scores."""
    return any(math.isfinite(c) for run in runs for s in run.stages for c in [sum(point(s, view))])


def one(run: RunRecord, view: View) -> Draw:
    """Base → steered → healed → steered on it → …, with 95% intervals; the prompt beside them."""

    def draw(axes: Axes) -> None:
        frame(axes, view)
        path = [s for s in run.stages if s.stage in ("base", "steered", "healed") and drawable(s, view)]
        for a, b in pairwise(path):
            faint = 1.0 if len(path) <= CROWDED else 0.45
            arrow(axes, point(a, view), point(b, view), steering=b.stage == "steered", faint=faint)
        named: set[str] = set()
        for s in run.stages:
            if drawable(s, view):
                node(
                    axes,
                    s,
                    view,
                    label=None if s.stage in named else f"{s.stage}{', by round' * (s.round >= 0)}",
                )
                named.add(s.stage)

    return draw


def several(runs: list[RunRecord], view: View) -> Draw:
    """The healed models of each run, one colour a run, from base on; each run's prompt as a diamond."""

    def draw(axes: Axes) -> None:
        frame(axes, view)
        for i, run in enumerate(runs):
            colour = RUNS[i % len(RUNS)]
            path = [s for s in run.stages if s.stage in ("base", "healed") and drawable(s, view)]
            axes.plot(
                *zip(*(point(s, view) for s in path), strict=True) if path else ([], []),
                color=colour,
                label=run.name,
            )
            for s in run.stages:
                if s.stage != "steered" and drawable(s, view):
                    node(axes, s, view, colour)

    return draw


def frame(axes: Axes, view: View) -> None:
    axes.set(title=view.title, xlabel=view.x_label, ylabel=view.y_label)
    axes.margins(0.1)
    axes.locator_params(nbins=6)
    axes.axhline(0, color=MUTED, linewidth=0.7)
    axes.axvline(0, color=MUTED, linewidth=0.7)


def node(axes: Axes, s: Stage, view: View, colour: str | None = None, label: str | None = None) -> None:
    """A mark with its intervals: the round's number inside, or a name beside."""
    x, y = point(s, view)
    face = colour or {"base": INK, "prompt": PROMPT, "steered": PAPER, "healed": HEALED}[s.stage]
    edge = colour or {"base": INK, "prompt": PROMPT, "steered": STEERED, "healed": HEALED}[s.stage]
    layer = 4 + s.round * 0.01
    axes.errorbar(
        x,
        y,
        xerr=reach(s, view.x),
        yerr=reach(s, view.y),
        fmt="none",
        ecolor=edge,
        elinewidth=0.9,
        alpha=0.5,
        zorder=3,
    )
    if s.round < 0:
        shape, size = ("s", 5.0) if s.stage == "base" else ("D", 6.0)
        axes.plot(x, y, shape, color=face, markersize=size, zorder=layer, label=label)
        if colour is None:
            axes.annotate(
                s.stage,
                (x, y),
                xytext=(6, -4 if s.stage == "prompt" else -9),
                textcoords="offset points",
                va="top" if s.stage == "prompt" else "center",
                color=edge,
                fontsize=8,
                zorder=7,
            )
        return
    axes.plot(x, y, "o", markersize=11, markerfacecolor=face, markeredgecolor=edge, zorder=layer, label=label)
    axes.text(
        x,
        y,
        str(s.round),
        ha="center",
        va="center_baseline",
        fontsize=7.5,
        fontweight="bold",
        color=STEERED if s.stage == "steered" and colour is None else PAPER,
        zorder=layer,
    )


def arrow(
    axes: Axes, a: tuple[float, float], b: tuple[float, float], *, steering: bool, faint: float
) -> None:
    axes.add_patch(
        FancyArrowPatch(
            a,
            b,
            arrowstyle="-|>",
            mutation_scale=8,
            shrinkA=6,
            shrinkB=6.5,
            zorder=3.5,
            color=STEERED if steering else HEALED,
            linewidth=1.0 if steering else 1.4,
            linestyle=(0, (3, 2)) if steering else "solid",
            connectionstyle="arc3,rad=0.1",
            alpha=faint * (0.7 if steering else 1.0),
        )
    )


def point(s: Stage, view: View) -> tuple[float, float]:
    return score(s, view.x).mean, score(s, view.y).mean


def drawable(s: Stage, view: View) -> bool:
    return all(math.isfinite(v) for v in point(s, view))


def reach(s: Stage, name: str) -> list[list[float]] | None:
    """How far the interval reaches to either side, as matplotlib wants it; None where undefined."""
    return spread(score(s, name))


def spread(v: Score) -> list[list[float]] | None:
    if not math.isfinite(v.lo + v.hi):
        return None
    return [[max(v.mean - v.lo, 0.0)], [max(v.hi - v.mean, 0.0)]]
