"""One screen of a run: its stages, its gates, where things lie, where the time went.

In: a `RunRecord`. Out: a rich renderable of at most 40 lines at 80 columns.
"""

from __future__ import annotations

import math

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from steer_heal_love.ground.shown import shown
from steer_heal_love.nouns import Score
from steer_heal_love.report.bars import clock
from steer_heal_love.report.read import RunRecord, number, score
from steer_heal_love.report.scope import left_out
from steer_heal_love.report.words import outcome

SHOWN = 40
"""gates shown; there are a dozen kinds"""
LARGEST = 12
"""stages shown; a longer run leaves out its middle"""
COLUMNS = ("trait_shift", "trait_pos", "trait_neg", "neutral_kl", "own_excess")
"""scores by name; pos and neg are the halves of the trait"""
LEAST = 0.05
"""seconds that a room must have taken to be named"""
STYLE = {"pass": "green", "fail": "red", "undecided": "yellow"}


def summarise(run: RunRecord, cut: bool = True) -> RenderableType:
    """What came out, the stages, the gates, the paths, the seconds. `cut`: long lines end at the screen's edge."""
    model, seed = (run.manifest.get(k, "?") for k in ("model", "seed"))
    title = f"{run.persona.get('name', '?')} in {model}, seed {seed}: {len(run.healed)} round{'s' * (len(run.healed) != 1)} healed"
    parts: list[RenderableType] = [Text(shown(title), style="bold"), Text(shown(outcome(run))), Stages(run)]
    if run.gates:
        parts.append(gates(run, cut))
    if missing := left_out(run):
        parts.append(Text(shown(" ".join(missing)), style="yellow"))
    parts += [Text(shown(note), style="yellow", no_wrap=True, overflow="ellipsis") for note in run.notes[:2]]
    for label, path in (("adapter", run.path / "adapter"), ("report", run.path / "report.html")):
        if path.exists():
            parts.append(Text(f"{label:<8} {shown(path)}", overflow="fold"))
    if took := [f"{shown(room)} {clock(s)}" for room, s in run.seconds.items() if s >= LEAST]:
        parts.append(Text("time     " + ", ".join(took)))
    return Group(*parts)


SHAPES = (
    ("dose", "interval", "pos", "neg", "neutral_kl", "own_excess"),
    ("interval", "pos", "neg", "neutral_kl", "own_excess"),
    ("trait_shift", "pos", "neg", "neutral_kl", "own_excess"),
    ("interval", "neutral_kl"),
    ("trait_shift", "neutral_kl"),
)
"""columns of the table of stages, for ever narrower screens"""


class Stages:
    """A row a stage; shifts are from base, in nats per token. No column is cut: a narrow screen has fewer of them."""

    def __init__(self, run: RunRecord) -> None:
        self.run = run

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        tables = [self.table(columns) for columns in SHAPES]
        free = options.update(max_width=1000)
        fits = (t for t in tables if Measurement.get(console, free, t).maximum <= options.max_width)
        yield next(fits, tables[-1])

    def table(self, columns: tuple[str, ...]) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        table.add_column("stage", no_wrap=True)
        for name in columns:
            heading = "trait_shift" if name == "interval" else name
            table.add_column(heading, justify="right", no_wrap=True)
        rows = self.run.stages
        cut = len(rows) > LARGEST
        for i, s in enumerate(rows[:3] + rows[-(LARGEST - 4) :] if cut else rows):
            if cut and i == 3:
                table.add_row("…")
            trait, pos, neg, drift, odd = (score(s, name) for name in COLUMNS)
            cells = {
                "dose": plain(number(s.dose), ".2f"),
                "interval": interval(trait, ".2f"),
                "trait_shift": plain(trait.mean, "+.2f"),
                "pos": plain(pos.mean, "+.2f"),
                "neg": plain(neg.mean, "+.2f"),
                "neutral_kl": plain(drift.mean, ".3f"),
                "own_excess": plain(odd.mean, "+.2f"),
            }
            named = s.stage if s.round < 0 else f"{s.round} {s.stage}"
            table.add_row(
                Text(shown(named)), *(cells[c] for c in columns), style="" if s.stage == "healed" else "dim"
            )
        return table


def gates(run: RunRecord, cut: bool) -> RenderableType:
    """Two lines a gate: its verdict, the outcome and what that says; under it what was observed."""
    lines = []
    name, said = (max(len(getattr(g, field)) for g in run.gates) for field in ("gate", "verdict"))
    for g in run.gates[:SHOWN]:
        says = g.means.split(". ")[0].rstrip(".") + "."
        outcome = f" {g.outcome.replace('_', ' ')}:" if g.outcome else ""
        verdict = (f"{shown(g.verdict):<{said}}", STYLE.get(g.verdict, ""))
        for line in (
            Text.assemble(f" {shown(g.gate):<{name}}  ", verdict, shown(f" {outcome} {says}")),
            Text(shown(f"   {g.observed}"), style="dim"),
        ):
            if cut:
                line.no_wrap, line.overflow = True, "ellipsis"
            lines.append(line)
    return Group(*lines)


def plain(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "–"


def interval(s: Score, form: str) -> str:
    """Mean and 95% interval, as far as they are defined."""
    if not math.isfinite(s.lo) or not math.isfinite(s.hi):
        return plain(s.mean, "+" + form)
    return f"{s.mean:+{form}} [{s.lo:+{form}}, {s.hi:+{form}}]"
