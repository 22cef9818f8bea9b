"""One screen of a run: its stages, its gates, where things lie, where the time went.

In: a `RunRecord`. Out: a rich renderable of at most 40 lines at 80 columns.
"""

from __future__ import annotations

import math

from rich.console import Group, RenderableType
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
COLUMNS = {
    "trait_shift": "trait_shift",
    "trait_pos": "pos",
    "trait_neg": "neg",
    "neutral_kl": "neutral_kl",
    "own_excess": "own_excess",
}
"""scores by name, and their headings; pos and neg are the halves of the trait"""
STYLE = {"pass": "green", "fail": "red", "undecided": "yellow"}


def summarise(run: RunRecord, cut: bool = True) -> RenderableType:
    """What came out, the stages, the gates, the paths, the seconds. `cut`: long lines end at the screen's edge."""
    model, seed = (run.manifest.get(k, "?") for k in ("model", "seed"))
    title = f"{run.persona.get('name', '?')} in {model}, seed {seed}: {len(run.healed)} rounds healed"
    parts: list[RenderableType] = [Text(shown(title), style="bold"), Text(shown(outcome(run))), stages(run)]
    if run.gates:
        parts.append(gates(run, cut))
    if missing := left_out(run):
        parts.append(Text(shown(" ".join(missing)), style="yellow"))
    parts += [Text(shown(note), style="yellow", no_wrap=True, overflow="ellipsis") for note in run.notes[:2]]
    for label, path in (("adapter", run.path / "adapter"), ("report", run.path / "report.html")):
        if path.exists():
            parts.append(Text(f"{label:<8} {shown(path)}", overflow="fold"))
    if run.seconds:
        parts.append(
            Text("time     " + ", ".join(f"{shown(room)} {clock(s)}" for room, s in run.seconds.items()))
        )
    return Group(*parts)


def stages(run: RunRecord) -> Table:
    """A row a stage; shifts are from base, in nats per token."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("round", "stage"):
        table.add_column(name)
    for name in ("dose", *COLUMNS.values()):
        table.add_column(name, justify="right", no_wrap=True)
    rows = run.stages
    cut = len(rows) > LARGEST
    for i, s in enumerate(rows[:3] + rows[-(LARGEST - 4) :] if cut else rows):
        if cut and i == 3:
            table.add_row("…")
        trait, pos, neg, drift, odd = (score(s, name) for name in COLUMNS)
        table.add_row(
            "" if s.round < 0 else str(s.round), Text(shown(s.stage)), plain(number(s.dose), ".2f"),
            interval(trait, ".2f"), plain(pos.mean, "+.2f"), plain(neg.mean, "+.2f"), plain(drift.mean, ".3f"),
            plain(odd.mean, "+.2f"),
            style="" if s.stage == "healed" else "dim",
        )  # fmt: skip
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
