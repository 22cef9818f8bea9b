"""From a function that draws on axes to inline SVG that follows the page's colours, or to a PNG.

Every colour is drawn as a fixed hex and replaced by the page's variable of that name, so one figure serves
light and dark. Text stays text. Only `Figure` objects: no global figure list, nothing to close.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from steer_heal_love.ground import records

# The Okabe-Ito palette, told apart with any colour vision; marks differ in shape too.
COLOURS = {
    "ink": "#1c2024",
    "muted": "#646b73",
    "grid": "#dfe3e7",
    "paper": "#fefefe",
    "steered": "#d55e00",
    "healed": "#0072b2",
    "prompt": "#00875f",
    "fourth": "#b0528a",
    "fifth": "#a87900",
}
INK, MUTED, GRID, PAPER, STEERED, HEALED, PROMPT, FOURTH, FIFTH = COLOURS.values()
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9.0,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titley": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.4,
}

MARK = "steer-heal-love"
"""written into every PNG, so that it is known for ours"""
Draw = Callable[[Axes], None]
EDGES = {"left": 0.68, "right": 0.22, "bottom": 0.5, "top": 0.34}
"""room around the axes, in inches"""


def svg(draw: Draw, size: tuple[float, float], about: str, page: str = "") -> Markup:
    """One panel as an inline SVG, `about` for those who hear it; its ids differ by `page` and `about`."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": page + about}):
        figure = _figure([draw], size)
        out = io.StringIO()
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None})
    body = out.getvalue()
    body = body[body.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = (
        re.sub(r'\s(?:xmlns(?::xlink)?|width|height|version)="[^"]*"', "", body[: (end := body.index(">"))])
        + body[end:]
    )
    body = re.sub(r'<g id="[A-Za-z0-9.]+_\d+">', "<g>", body)
    for name, colour in COLOURS.items():
        body = body.replace(colour, f"var(--{name})")
    label = Markup.escape(about)
    return Markup(body.replace("<svg", f'<svg role="img" aria-label="{label}"', 1))


def png(draws: Sequence[Draw], size: tuple[float, float], to: Path) -> None:
    """Panels side by side, each of `size` inches, on white, under a legend of what the first one labels."""
    with mpl.rc_context(STYLE):
        figure = _figure(draws, size, head=0.35)
        figure.set_facecolor("white")
        figure.patch.set_visible(True)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        if handles:
            left = EDGES["left"] / size[0] / len(draws)
            figure.legend(
                handles, labels, loc="upper left", bbox_to_anchor=(left, 1.0), ncols=6, borderaxespad=0.4
            )
        with records.whole(to) as scratch:
            FigureCanvasAgg(figure).print_png(scratch, metadata={"Software": MARK})


def _figure(draws: Sequence[Draw], size: tuple[float, float], head: float = 0.0) -> Figure:
    wide, high = size[0], size[1] + head
    figure = Figure(figsize=(wide * len(draws), high), dpi=144)
    figure.patch.set_visible(False)
    for i, draw in enumerate(draws):
        box = (
            (i * wide + EDGES["left"]) / (wide * len(draws)),
            EDGES["bottom"] / high,
            (wide - EDGES["left"] - EDGES["right"]) / (wide * len(draws)),
            (size[1] - EDGES["bottom"] - EDGES["top"]) / high,
        )
        axes = figure.add_axes(box)
        axes.patch.set_visible(False)
        draw(axes)
    return figure
