"""A vaccinated run on one screen, from its `fight.json`; `fight_html` draws its page."""

from __future__ import annotations

from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from steer_heal_love.ground import made, records, written
from steer_heal_love.ground.shown import shown
from steer_heal_love.ground.untrusted import shaped
from steer_heal_love.nouns import Json
from steer_heal_love.report.comparison import score_of
from steer_heal_love.report.screen import interval

FILE = "fight.json"
"""the record of a vaccinated run in its folder"""
ROWS = {
    "moved": "trait toward the unwanted pole, nats/token",
    "learned": "fall of the held-out rows' NLL, nats/token",
}
DIFFERENCES = {"moved": "prevented", "learned": "given_up"}


def read(folder: Path) -> Json:
    """What the folder's `fight.json` says. Raises `UserError` where it can't be what a run wrote."""
    load = lambda file: shaped(records.read_json(file), written.FIGHT)
    return made.read(load, folder / FILE)  # type: ignore[no-any-return]


def screen(folder: Path) -> RenderableType:
    """What plain fine-tuning did, what the prevented one did, the difference, and what that says."""
    found = read(folder)
    out = Table(box=None, padding=(0, 1), header_style="dim")
    for name in ("", "plain", "with prevention", "difference"):
        out.add_column(name, justify="right" if name else "left")
    for key, label in ROWS.items():
        ways = (found["ways"][way][key] for way in ("plain", "prevented"))
        out.add_row(label, *(interval(score_of(s), ".2f") for s in (*ways, found[DIFFERENCES[key]])))
    drift = [score_of(found["ways"][way]["scores"].get("neutral_kl")) for way in ("plain", "prevented")]
    out.add_row("drift on neutral prompts, neutral_kl", *(interval(s, ".3f") for s in drift), "")
    title = f"{found['persona']} in {found['model']}: {found['rows']} rows learned, {found['held_rows']} held out; unwanted: {found['unwanted']}"
    lines = [Text(shown(line)) for line in found["says"]]
    places = [("adapter", folder / "adapter"), ("report", folder / "report.html")]
    where = [Text(f"{name:<8} {shown(p)}", overflow="fold") for name, p in places if p.exists()]
    return Group(Text(shown(title), style="bold"), out, *lines, *where)
