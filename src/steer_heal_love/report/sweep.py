"""A sweep's table and curve, and a pre-flight's findings, from what was saved alone."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.axes import Axes
from rich.table import Table

from steer_heal_love.config import VectorConfig
from steer_heal_love.ground.shown import shown
from steer_heal_love.nouns import Json
from steer_heal_love.report.canvas import FIFTH, FOURTH, HEALED, INK, PROMPT, STEERED, png

STYLES = ((HEALED, "o"), (STEERED, "s"), (PROMPT, "D"), (FOURTH, "v"), (FIFTH, "^"), (INK, "P"))

DEFAULT = (VectorConfig.method, "add", VectorConfig.layers)


def with_interval(score: Json | None, digits: int = 3) -> str:
    """A mean with its interval; a dash where it is undefined."""
    if not score or score["mean"] is None:
        return "–"
    if score["lo"] is None:
        return f"{score['mean']:.{digits}f}"
    return f"{score['mean']:.{digits}f} [{score['lo']:.{digits}f}, {score['hi']:.{digits}f}]"


def table(row: Json) -> Table:
    """A line a cell, the one with most trait per nat first."""
    out = Table(
        "method", "operation", "layers", "nats", "dose", "trait, nats/token", "trait per nat", "coherent"
    )
    best = lambda cell: -(cell["per_nat"]["mean"] or -math.inf)
    for cell in sorted(row["cells"], key=best):
        dose = cell["dose"]
        low, high = cell["layers"]
        out.add_row(
            shown(cell["method"]),
            shown(cell["operation"]),
            f"{low:g}–{high:g}",
            f"{dose['kl_nats'] or math.nan:.2f}",
            f"{dose['dose']:.3g}",
            with_interval(cell["trait"]),
            with_interval(cell["per_nat"]),
            with_interval(cell["coherent"], 2),
        )
    return out


def said(row: Json) -> list[str]:
    """The choice in words, and whether it is told apart from the default."""
    choice, lead = row["choice"], row["lead"]
    if not choice:
        return ["No cell is coherent enough at its nats, so nothing is chosen."]
    low, high = choice["layers"]
    out = [
        f"Most trait per nat: {shown(choice['method'])}, {shown(choice['operation'])}, layers {low:g}–{high:g}."
    ]
    if (choice["method"], choice["operation"], tuple(choice["layers"])) == DEFAULT:
        return [*out, "That is the default."]
    if lead["lo"] is None:
        return [*out, "The default was not measured beside it."]
    ahead = lead["lo"] > 0
    told = "is ahead of the default" if ahead else "can't be told from the default"
    if lead["hi"] < 0:
        told = "is behind the default, which was not coherent enough or whose dose was not found"
    return [*out, f"By its interval it {told}: {with_interval(lead)} trait per nat, paired by probe."]


def write_curve(row: Json, to: Path) -> None:
    """Trait per nat by band of layers, a line a method; hollow marks are below the floor on coherence."""

    def draw(axes: Axes) -> None:
        names = sorted({(c["method"], c["operation"], c["dose"]["nats"]) for c in row["cells"]})
        for k, name in enumerate(names):
            colour, mark = STYLES[k % len(STYLES)]
            mine = [c for c in row["cells"] if (c["method"], c["operation"], c["dose"]["nats"]) == name]
            mine.sort(key=lambda c: sum(c["layers"]))
            place = [sum(c["layers"]) / 2 + 0.004 * (k - len(names) / 2) for c in mine]
            mean = [c["per_nat"]["mean"] for c in mine]
            ends = [
                [m - (c["per_nat"]["lo"] or m) for m, c in zip(mean, mine, strict=True)],
                [(c["per_nat"]["hi"] or m) - m for m, c in zip(mean, mine, strict=True)],
            ]
            axes.errorbar(
                place,
                mean,
                ends,
                color=colour,
                linewidth=1.0,
                label=f"{name[0]}, {name[1]}, {name[2]:g} nats",
            )
            for x, y, c in zip(place, mean, mine, strict=True):
                fine = c["coherent"]["mean"] is not None and c["coherent"]["mean"] >= row["floor"]
                axes.plot(x, y, mark, color=colour, markerfacecolor=colour if fine else "white", markersize=4)
        axes.set(xlabel="middle of the band, as a share of the depth", ylabel="trait per nat", title="Sweep")

    png([draw], (6.4, 3.4), to)


def preflight_lines(found: Json) -> list[str]:
    """A pre-flight as lines of text."""
    effect, by_layer = found["effect"], found["separability"]
    out = [
        f"{shown(found['persona'])}: {found['verdict']}",
        *(f"  because {shown(reason)}" for reason in found["because"]),
    ]
    out += [f"lint: {len(found['lint'])} findings", f"reliability of the vector: {found['reliability']:.3f}"]
    out += [f"separability, layer {i}: AUC {with_interval(score, 3)}" for i, score in by_layer.items()]
    for name in ("effect", "random"):
        cell = found[name]
        out.append(
            f"{'trait' if name == 'effect' else 'the same of a random direction'} at {cell['dose']['kl_nats']:.2f} nats "
            f"(dose {cell['dose']['dose']:.3g}): {with_interval(cell['trait'])} nats/token, coherent {with_interval(cell['coherent'], 2)}"
        )
    out.append(
        f"trait per nat: {with_interval(effect['per_nat'])}; above random {with_interval(found['above_random'])}"
    )
    cosines = ", ".join(f"{shown(name)} {value:+.2f}" for name, value in found["cosines"].items())
    return [
        *out,
        f"off target: {found['off_target']:.0%} of its length in the span of other personas; cosines {cosines or 'none'}",
    ]
