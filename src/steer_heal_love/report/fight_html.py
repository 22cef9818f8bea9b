"""A vaccinated run's page: what was prevented, what was still learned, what else changed, and how the models write.

In: the folder's `fight.json`, and the scores of the base and of both ways as far as they are there. Out: one
self-contained page in which everything that a model, a persona or a file said passes the template's autoescape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes

from steer_heal_love.ground import declared, made, records
from steer_heal_love.ground import folder as files
from steer_heal_love.nouns import Json, Score
from steer_heal_love.report import canvas, fight
from steer_heal_love.report.comparison import score_of
from steer_heal_love.report.html import MARK, SMALL, ours, templates

ABOUT = {
    "moved": "How far the trait moved toward the unwanted pole on the held-out probes: −trait_shift.",
    "learned": "How far the NLL of the file's held-out rows fell from the base's. More is learned.",
}
TITLES = {"moved": "Moved toward the unwanted pole", "learned": "Learned from the file"}
STYLES = (("plain", "s", canvas.INK), ("prevented", "o", canvas.HEALED), ("difference", "D", canvas.PROMPT))
"""what is drawn of a row, from the top: its name, its mark, its colour"""
SHOWN = 8
"""prompts whose answers are shown, half of either kind"""


@dataclass(frozen=True)
class Row:
    """One measure of both ways; `difference` is plain less prevented, item by item."""

    key: str
    label: str
    about: str
    plain: Score
    prevented: Score
    difference: Score


def write(folder: Path, to: Path) -> None:
    """The page at `to`. Raises `UserError` where it would take the place of a file that no report wrote."""
    ours(to, MARK.encode() + b"</title>")
    records.write_text(to, render(folder))


def render(folder: Path) -> str:
    """The whole page."""
    found = fight.read(folder)
    rows = [row(found, key) for key in fight.ROWS]
    return (
        templates()
        .get_template("fight.html.j2")
        .render(
            f=found,
            rows=rows,
            beside=beside(found),
            texts=texts(folder),
            figures=[canvas.svg(partial(drawn, r), SMALL, TITLES[r.key]) for r in rows],
            colours={"light": canvas.COLOURS},
        )
    )


def row(found: Json, key: str) -> Row:
    plain, prevented = (score_of(found["ways"][way][key]) for way in ("plain", "prevented"))
    difference = score_of(found[fight.DIFFERENCES[key]])
    return Row(key, TITLES[key], ABOUT[key], plain, prevented, difference)


def beside(found: Json) -> list[tuple[str, Score, Score, str, bool]]:
    """Each further score that both ways have: its name, both values, what it is, whether it has a sign."""
    plain, prevented = (found["ways"][way]["scores"] for way in ("plain", "prevented"))
    about = lambda name: declared.declared[name].means if name in declared.declared else ""
    return [
        (name, score_of(plain[name]), score_of(prevented[name]), about(name), declared.signed(name))
        for name in plain
        if name in prevented
    ]


def texts(folder: Path) -> list[dict[str, str]]:
    """Answers of the base and of both ways to the same prompts, the first of either kind; none where one is gone."""
    places = {"base": folder / "base", **{w: folder / "fight" / w for w in ("plain", "prevented")}}
    written = {who: samples(place / "scores.json", base=who == "base") for who, place in places.items()}
    asked = list(written["base"])
    half = len(asked) // 2
    chosen = asked[: SHOWN // 2] + asked[half : half + SHOWN // 2] if len(asked) > SHOWN else asked
    return [
        {"prompt": p, **{who: said[p] for who, said in written.items()}}
        for p in chosen
        if all(p in said for said in written.values())
    ]


def samples(file: Path, *, base: bool) -> dict[str, str]:
    """What one model wrote, by prompt. Raises `UserError` for a damaged file."""
    stages = made.read(files.load_stages, file) if file.is_file() else []
    wanted = [s for s in stages if (s.stage == "base") == base]
    return {str(m["prompt"]): str(m["text"]) for s in wanted[:1] for m in s.samples}


def drawn(r: Row, axes: Axes) -> None:
    """The three scores of a row one under the other, with their intervals, around a line at 0."""
    axes.set(title=r.label, xlabel="nats/token", ylim=(-0.6, len(STYLES) - 0.4))
    axes.axvline(0.0, color=canvas.MUTED, linewidth=0.9)
    axes.set_yticks([])
    axes.margins(x=0.12)
    for y, (name, mark, colour) in enumerate(reversed(STYLES)):
        s: Score = getattr(r, name)
        if not math.isfinite(s.mean):
            continue
        if math.isfinite(s.lo) and math.isfinite(s.hi):
            axes.plot([s.lo, s.hi], [y, y], color=colour)
        axes.plot([s.mean], [y], mark, color=colour, markersize=6)
