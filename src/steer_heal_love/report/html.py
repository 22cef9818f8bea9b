"""One self-contained HTML file and a PNG from run records: figures drawn, words chosen, the template filled.

Everything that a model or a user wrote passes through the template's autoescape; only figures are markup.
"""

from __future__ import annotations

import functools
import json
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import jinja2
from markupsafe import Markup

from steer_heal_love.ground import declared, records
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.shown import shown
from steer_heal_love.nouns import FOUNDATIONS, Json
from steer_heal_love.report import bounds, canvas, panels, trajectory
from steer_heal_love.report.bars import clock
from steer_heal_love.report.diary import diary
from steer_heal_love.report.read import Round, RunRecord, number, score
from steer_heal_love.report.scope import left_out
from steer_heal_love.report.words import interval, num, outcome, percent

Figure = tuple[str, canvas.Draw]
"""what a figure shows, in words, and what draws it"""
LARGE, SMALL = (5.2, 3.9), (3.5, 2.5)
MARK = ": steer-heal-love"
"""how every page's title ends"""
VISIBLE = 6
"""diary prompts that are not folded"""


def write(runs: list[RunRecord], to: Path) -> None:
    """The file at `to`, and `trajectory.png` in the same folder.

    Raises `UserError` where one of them would take the place of a file that no report wrote.
    """
    ours(to, MARK.encode() + b"</title>")
    ours(to.parent / "trajectory.png", canvas.MARK.encode())
    together = [draw_path(runs, v) for v in trajectory.VIEWS]
    canvas.png(together, (5.0, 4.2), to.parent / "trajectory.png")
    records.write_text(to, render(runs))


def ours(file: Path, mark: bytes) -> None:
    """Raise `UserError` unless the file is new, a report's, or lies in a run's own folder."""
    if not file.is_file() or (file.parent / "manifest.json").is_file():
        return
    with records.writing(file):
        if mark in file.read_bytes():
            return
    raise UserError(
        f"{shown(file)}: is there, and no report wrote it; move it, or give another --out. Nothing was changed."
    )


def draw_path(runs: list[RunRecord], view: trajectory.View) -> canvas.Draw:
    return trajectory.one(runs[0], view) if len(runs) == 1 else trajectory.several(runs, view)


@functools.cache
def templates() -> jinja2.Environment:
    """Every page's templates: escaping, strict about names, with the filters for numbers."""
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {
        "num": num,
        "percent": percent,
        "interval": interval,
        "clock": clock,
        "clip": bounds.clipped,
    }
    return env


def render(runs: list[RunRecord]) -> str:
    """The whole page."""
    combined = [
        canvas.svg(trajectory.several(runs, v), LARGE, f"{v.title}, {len(runs)} runs")
        for v in trajectory.VIEWS
        if len(runs) > 1 and trajectory.measured(runs, v)
    ]
    colours = {"light": canvas.COLOURS, "runs": [name_of(c) for c in trajectory.RUNS]}
    page = templates().get_template("template.html.j2")
    return page.render(runs=[section(r, i) for i, r in enumerate(runs)], combined=combined, colours=colours)


def name_of(colour: str) -> str:
    return next(n for n, c in canvas.COLOURS.items() if c == colour)


def section(run: RunRecord, index: int) -> Json:
    """What the template shows of one run."""
    at, entries = f"run{index}-", diary(run)
    kinds = dict.fromkeys(e.kind for e in entries)
    moved = [
        {"control": None, "causes": None, **r.transfer, "round": r.number, "dose": r.dose}
        for r in run.rounds
        if r.transfer
    ]
    shown_scores = [c for c in declared.columns() if any(c.name in s.scores for s in run.stages)]
    shown = [e for kind in kinds for e in [e for e in entries if e.kind == kind][: VISIBLE // 2]]
    open_now = {e.prompt for e in shown}
    folded = [e for e in entries if e.prompt not in open_now]
    return {
        "id": at,
        "run": run,
        "outcome": outcome(run),
        "left_out": left_out(run),
        "score": score,
        "number": number,
        "columns": [(c.name, declared.signed(c.name)) for c in shown_scores],
        "glossary": {c.name: c.means for c in shown_scores if c.means},
        "foundations": [f for f in FOUNDATIONS if any(f"mfv.{f}" in s.scores for s in run.stages)],
        "floor": number(run.config.get("coherence_floor", 0.5)),
        "trajectory": figures(at, LARGE, trajectories(run, trajectory.VIEWS)),
        "by_round": figures(at, SMALL, by_round(run, "by_round")),
        "forced": figures(at, LARGE, trajectories(run, trajectory.FORCED)),
        "format": figures(at, SMALL, by_round(run, "format")),
        "heals": [(r, heal_figures(at, run, r), gradient_ratios(r.healing)) for r in run.rounds if r.healing],
        "transfers": moved,
        "transfer_figures": figures(at, LARGE, transfer_figures(run, moved)),
        "survival": figures(at, SMALL, survival(run)),
        "reasons": [
            k for k, _ in sum((Counter(r.reasons) for r in run.rounds), Counter()).most_common(bounds.ROWS)
        ],
        "shown": shown,
        "folded": folded[: bounds.ROWS],
        "unfolded": bounds.counted(len(folded) - bounds.ROWS, "prompts, in base/scores.json"),
        "notes": some(run.notes, "notes, in events.jsonl"),
        "gates": run.gates[: bounds.ROWS],
        "manifest": json.dumps(run.manifest, indent=2, ensure_ascii=False),
        "peak": number(run.summary.get("peak_memory_gb")),
    }


def trajectories(run: RunRecord, views: Iterable[trajectory.View]) -> list[Figure]:
    """One figure for each view whose two scores the run has."""
    return [(v.title, trajectory.one(run, v)) for v in views if trajectory.measured([run], v)]


def by_round(run: RunRecord, place: str) -> list[Figure]:
    """One figure for each panel of this place of the page that the run has scores for."""
    return [(f"{p.title} by round", panels.by_round(run, p)) for p in panels.by(place) if panels.has(run, p)]


def survival(run: RunRecord) -> list[Figure]:
    """One figure for each round that walked the dose down."""
    bound = setting(run, "walk", "survival")
    return [
        (f"Survival by dose in round {r.number}", panels.survival(r, bound)) for r in run.rounds if r.survival
    ]


def some(lines: list[str], what: str) -> list[str]:
    """The first lines, and how many more there are."""
    more = bounds.counted(len(lines) - bounds.ROWS, what)
    return [*lines[: bounds.ROWS], *([more] if more else [])]


def figures(at: str, size: tuple[float, float], draws: list[Figure]) -> list[Markup]:
    return [canvas.svg(draw, size, about, at) for about, draw in draws]


def transfer_figures(run: RunRecord, moved: list[Json]) -> list[Figure]:
    """How far the student moved along the vector, by layer; what the rounds cost, where that was measured."""
    measured = [t for t in moved if "cosine_by_layer" in t]
    paid = [r for r in run.rounds if r.transfer and "ledger" in r.transfer]
    by_layer = [("Cosine with the vector by layer", panels.cosines(measured))] if measured else []
    return by_layer + [
        (f"{about} by round", panels.ledger(paid, text)) for text, about in panels.LEDGER.items() if paid
    ]


def heal_figures(at: str, run: RunRecord, r: Round) -> list[Markup]:
    on = setting(run, "heal", "lam") != 0
    tau = setting(run, "heal", "tau") if on else math.nan
    return [*drawn_heal(at, r.number, tau, json.dumps(r.healing or {}))]


@functools.lru_cache(maxsize=64)
def drawn_heal(at: str, round: int, tau: float, record: str) -> tuple[Markup, ...]:
    """A round's heal from its record in JSON. A run draws its report after each round, and the earlier ones' heals are as
    they were."""
    healing = json.loads(record)
    shown = [
        (f"Imitation of the kept text in round {round}", panels.imitation(healing)),
        (f"Divergence from the reference in round {round}", panels.divergences(healing, tau)),
    ]
    return tuple(figures(at, LARGE, shown))


def setting(run: RunRecord, room: str, name: str) -> float:
    return number(run.config.get(room, {}).get(name))


def gradient_ratios(healing: Json | None) -> dict[str, float]:
    """Mean gradient ratio of each term over the steps where it was taken."""
    rows = (healing or {}).get("gradient_ratios", [])
    terms = dict.fromkeys(k for row in rows for k in row if k != "step")
    seen = {t: [v for row in rows if math.isfinite(v := number(row.get(t)))] for t in terms}
    return {t: sum(v) / len(v) for t, v in seen.items() if v}
