"""Small panels: a score by round, a heal's terms by step, the student's shift by layer, its cost by round, survival by dose."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, PercentFormatter

from steer_heal_love.ground.declared import curves, in_order
from steer_heal_love.nouns import Json, Response
from steer_heal_love.report.bounds import thinned
from steer_heal_love.report.canvas import FOURTH, HEALED, INK, MUTED, PROMPT, STEERED, Draw
from steer_heal_love.report.read import Round, RunRecord, number, score
from steer_heal_love.report.trajectory import reach


@dataclass(frozen=True)
class Panel:
    """One number by round. `value` None means a score of that name."""

    name: str
    title: str
    unit: str
    value: Callable[[Round], float] | None = None


ROUNDS = (
    Panel("dose", "Dose that survived", "dose", lambda r: r.dose),
    Panel(
        "cosine_with_first",
        "Cosine with the first vector",
        "cosine",
        lambda r: number(r.walk.get("cosine_with_first")),
    ),
)
"""what a round's own record says, drawn after the scores"""


def by(row: str) -> list[Panel]:
    """The panels of one row: of every score that declares one; `format` is whether a model that has to choose still
    answers in the format asked for."""
    scores = [
        Panel(s.name, s.panel.title, s.panel.unit) for s in in_order() if s.panel and s.panel.row == row
    ]
    return scores + (list(ROUNDS) if row == "by_round" else [])


def by_round(run: RunRecord, panel: Panel) -> Draw:
    """Steered and healed with intervals; the prompt as a dashed line over its interval, base as a thin one."""

    def draw(axes: Axes) -> None:
        axes.set(title=panel.title, xlabel="round", ylabel=panel.unit)
        axes.margins(0.08)
        if panel.value:
            points = [(r.number, v) for r in run.rounds if math.isfinite(v := panel.value(r))]
            axes.plot(*zip(*points, strict=True), "o-", color=INK, markersize=4)
        else:
            scores(axes, run, panel.name)
        by_number(axes, run.rounds)

    return draw


def by_number(axes: Axes, rounds: list[Round]) -> None:
    """The rounds along x, room at both ends."""
    numbers = [r.number for r in rounds]
    axes.xaxis.set_major_locator(FixedLocator(numbers) if len(numbers) < 12 else MaxNLocator(integer=True))
    axes.set_xlim(min(numbers) - 0.4, max(numbers) + 0.4)


def scores(axes: Axes, run: RunRecord, name: str) -> None:
    told, base = score(run.stage("prompt"), name), score(run.stage("base"), name)
    if math.isfinite(base.mean):
        axes.axhline(base.mean, color=MUTED, linewidth=0.9)
    if math.isfinite(told.mean):
        axes.axhline(told.mean, color=PROMPT, linestyle=(0, (4, 3)), linewidth=1.1)
    if math.isfinite(told.lo + told.hi):
        axes.axhspan(told.lo, told.hi, color=PROMPT, alpha=0.12, linewidth=0)
    for kind, colour, mark, aside in (("steered", STEERED, "^", -0.07), ("healed", HEALED, "o", 0.07)):
        found = [s for s in run.stages if s.stage == kind and math.isfinite(score(s, name).mean)]
        x, y = [s.round + aside for s in found], [score(s, name).mean for s in found]
        axes.plot(x, y, f"{mark}-", color=colour, markersize=4.5)
        for s in found:
            axes.errorbar(
                s.round + aside,
                score(s, name).mean,
                yerr=reach(s, name),
                fmt="none",
                ecolor=colour,
                elinewidth=1.1,
            )


def has(run: RunRecord, panel: Panel) -> bool:
    """Whether there is anything to draw by round."""
    if panel.value:
        return any(math.isfinite(panel.value(r)) for r in run.rounds)
    return any(math.isfinite(score(s, panel.name).mean) for s in run.stages if s.round >= 0)


def imitation(healing: Json) -> Draw:
    """How near training comes to what is learned: each step in training, each epoch on held-out prompts."""

    def draw(axes: Axes) -> None:
        axes.set(title="What is learned, on the kept text", xlabel="step", ylabel="nats/token")
        for name, colour, label in (("soft", HEALED, "KL from the teacher"), ("nll", INK, "NLL")):
            line(axes, healing, name, colour, label)
            epochs(axes, healing, name, colour, f"{label}, held out")
        finish(axes)

    return draw


CURVES = (STEERED, PROMPT, FOURTH, HEALED, INK)
"""colours of the loss terms that declare a curve, in their order"""


def divergences(healing: Json, tau: float) -> Draw:
    """What keeps it coherent: each loss term that declares a curve by step, divergence and anchor KL on held-out prompts."""

    def draw(axes: Axes) -> None:
        axes.set(title="Divergence from the reference", xlabel="step", ylabel="nats/token")
        declared = sorted(curves.values(), key=lambda c: c.place)
        for curve, colour in zip(declared, cycle(CURVES), strict=False):
            if any(s.get(curve.term) for s in healing.get("steps", [])):
                line(axes, healing, curve.term, colour, curve.label)
        epochs(axes, healing, "divergence", STEERED, "divergence, held out")
        epochs(axes, healing, "anchor_kl", PROMPT, "anchor KL, held out")
        if math.isfinite(tau):
            axes.axhline(tau, color=MUTED, linestyle=(0, (1, 2)), linewidth=1.2, label="τ: free below")
        finish(axes)

    return draw


def line(axes: Axes, healing: Json, name: str, colour: str, label: str) -> None:
    points = thinned([(s["step"], number(s[name])) for s in healing.get("steps", []) if name in s])
    if points:
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.1, alpha=0.85, label=label)


def epochs(axes: Axes, healing: Json, name: str, colour: str, label: str) -> None:
    seen, steps = healing.get("validation", []), len(healing.get("steps", []))
    points = thinned(
        [(steps * (i + 1) / len(seen) - 1, number(v.get(name))) for i, v in enumerate(seen)], 200
    )
    if any(math.isfinite(v) for _, v in points):
        axes.plot(*zip(*points, strict=True), "o", color=colour, markersize=5, label=label)


def finish(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.get_legend_handles_labels()[0]:
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.3 * (high - low))
        axes.legend(loc="upper right", ncols=2, borderaxespad=0, handlelength=1.4, columnspacing=1.0)


def cosines(rounds: list[Json]) -> Draw:
    """Each round's own shift against its vector by layer; the control's, dashed; and what chance reaches."""
    first, last = rounds[0], rounds[-1]

    def draw(axes: Axes) -> None:
        axes.set(title="Cosine with the vector, by layer", xlabel="layer", ylabel="cosine")
        for name, label, dense in (("halves", "random halves", 0.13), ("random", "random directions", 0.3)):
            if found := last[name].get("largest_by_layer"):
                chance = np.array([number(v) for v in found])
                axes.fill_between(
                    last["layers"], -chance, chance, color=MUTED, alpha=dense, linewidth=0, label=label
                )
        for i, t in enumerate(rounds):
            axes.plot(
                t["layers"],
                [number(v) for v in t["cosine_by_layer"]],
                "o-",
                color=HEALED,
                markersize=3.5,
                alpha=0.35 + 0.65 * (i + 1) / len(rounds),
                label=f"round {t['round']}" if t in (first, last) else None,
            )
        if control := last.get("control"):
            axes.plot(
                control["layers"],
                [number(v) for v in control["cosine_by_layer"]],
                "s--",
                color=PROMPT,
                markersize=3.5,
                label="unsteered control",
            )
        finish(axes)

    return draw


LEDGER = {"neutral": "KL on the base's neutral answers", "own": "KL on its own samples"}


def ledger(rounds: list[Round], text: str) -> Draw:
    """What the rounds cost on one kind of text: mean with interval and tail over tokens, since base and a round."""

    def draw(axes: Axes) -> None:
        axes.set(title=LEDGER[text], xlabel="round", ylabel="nats/token")
        for since, label, colour, aside in (
            ("total", "since base", HEALED, -0.06),
            ("round", "this round", STEERED, 0.06),
        ):
            found = [(r.number + aside, r.transfer["ledger"][since][text]) for r in rounds if r.transfer]
            x = [at for at, _ in found]
            mean, lo, hi = (
                np.array([number(v["mean_nats"][k]) for _, v in found]) for k in ("mean", "lo", "hi")
            )
            axes.errorbar(
                x,
                mean,
                yerr=[np.fmax(mean - lo, 0.0), np.fmax(hi - mean, 0.0)],
                fmt="o-",
                color=colour,
                markersize=4.5,
                label=label,
            )
            tail = [number(v["p95_nats"]) for _, v in found]
            axes.plot(x, tail, "^:", color=colour, markersize=4.5, label="95th percentile")
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        finish(axes)
        by_number(axes, rounds)

    return draw


def survival(r: Round, asked: float) -> Draw:
    """Coherent share by dose tried, the curve fitted to it, `asked` of its plateau, and the dose that the round took."""
    fitted = r.walk.get("response")

    def draw(axes: Axes) -> None:
        axes.set(
            title=f"Round {r.number}", xlabel="dose", ylabel="coherent", xscale="log", ylim=(-0.04, 1.04)
        )
        x, y = [s.dose for s in r.survival], [s.share for s in r.survival]
        spread = [[s.share - s.lo for s in r.survival], [s.hi - s.share for s in r.survival]]
        axes.errorbar(x, y, yerr=spread, fmt="o", color=STEERED, elinewidth=1.0, markersize=4.5)
        if fitted:
            doses = np.geomspace(min(x), max(x), 60)
            curve = Response(fitted["plateau"], fitted["half_dose"], fitted["steepness"])
            axes.plot(doses, [curve.share(d) for d in doses], color=STEERED, linewidth=1.2)
            if math.isfinite(asked):
                axes.axhline(asked * curve.plateau, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.1)
        if math.isfinite(r.dose):
            axes.axvline(r.dose, color=HEALED, linewidth=1.2)
            axes.annotate(
                f"taken: {r.dose:g}",
                (r.dose, 1.04),
                xycoords=("data", "data"),
                xytext=(3, -2),
                textcoords="offset points",
                va="top",
                color=HEALED,
                fontsize=8,
            )
        axes.xaxis.set_major_locator(FixedLocator(ticks(x)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda v, _: f"{v:.2g}")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))

    return draw


def ticks(doses: list[float]) -> list[float]:
    """The doses tried, less those too close to their left neighbour to label."""
    out: list[float] = []
    span = max(doses) / min(doses)
    for dose in sorted(doses):
        if not out or dose / out[-1] > span**0.14:
            out.append(dose)
    return out
