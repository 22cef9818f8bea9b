"""Records in, files out: the only room that draws, from saved run folders alone.

`write` makes one self-contained HTML file and `trajectory.png` beside it, `terminal` one screen of text,
`progress` the bars while a run works, `look` an answer on the way. Each takes a run however far it came; undefined shows as a dash.
`write_comparison` and `terminal_comparison` do the same for the folder of a comparison, `write_certificate` and
`terminal_certificate` for that of a certificate, `terminal_fight` for a vaccinated run, whose page `write` makes too;
`write_sweep` and `terminal_sweep` for a sweep's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from steer_heal_love.ground.errors import UserError
from steer_heal_love.report import comparison, comparison_table, fight
from steer_heal_love.report.bars import progress
from steer_heal_love.report.preview import preview
from steer_heal_love.report.read import read
from steer_heal_love.report.screen import summarise


def write(runs: list[Path], to: Path, *, ours: bool = False) -> None:
    """The report of one or several runs at `to`, and `trajectory.png` beside it; of one vaccinated run its own page.

    `ours`: this process is writing these runs, and needn't hash all their files to know them.
    Raises `UserError` when a path holds no run, and for a vaccinated run among several.
    """
    if any((Path(run) / fight.FILE).is_file() for run in runs):
        return write_fight(runs, Path(to))
    from steer_heal_love.report import (
        html,
    )  # matplotlib takes a second to import; a run should start without it

    html.write([read(Path(run), ours=ours) for run in runs], Path(to))


def command(run: Path) -> list[str]:
    """What has another process `write` the report of a run that is being written, for as long as its input is open: drawing
    takes a second or two, and keeps every other thread of its process waiting. Empty where no Python is known by its path, as
    inside another program."""
    kept = {"-I": sys.flags.isolated, "-E": sys.flags.ignore_environment, "-s": sys.flags.no_user_site}
    flags = [flag for flag, on in kept.items() if on]
    return [sys.executable, "-P", *flags, "-m", __name__, str(run)] if sys.executable else []


def terminal(run: Path, cut: bool = True) -> RenderableType:
    """A summary of the run for rich's console, long lines `cut` at its edge. `UserError` when the path holds no run."""
    return summarise(read(Path(run)), cut)


def write_comparison(folder: Path) -> None:
    """`compare.html` and `frontier.png` in a comparison's folder, from its `compare.json`."""
    from steer_heal_love.report import comparison_html

    comparison_html.write(comparison.read(folder), folder)


def terminal_comparison(folder: Path) -> RenderableType:
    """The table of a comparison for rich's console."""
    return comparison_table.table(comparison.read(folder))


def write_sweep(folder: Path) -> None:
    """`sweep.html` in a sweep's folder, from its `sweep.json` and the comparisons there."""
    from steer_heal_love.report import cells

    cells.write(cells.read(folder), folder)


def terminal_sweep(folder: Path) -> RenderableType:
    """One table of all of a sweep's personas, models and methods for rich's console."""
    from steer_heal_love.report import cells

    return cells.table(cells.read(folder))


def write_inspect(run: Path, out: Path) -> list[Path]:
    """Logs of Inspect in the folder `out`, one for each model that the run measured. Needs the extra `inspect`."""
    from steer_heal_love.report import inspect_log

    inspect_log.package()
    return inspect_log.write(read(Path(run)), Path(out))


CERTIFICATE = "certificate.json"
"""the record of a certificate in its folder"""


def write_certificate(folder: Path) -> None:
    """`certificate.html` in a certificate's folder, from its `certificate.json`."""
    from steer_heal_love.report import certificate

    certificate.write(folder)


def terminal_certificate(folder: Path) -> RenderableType:
    """One screen of a certificate for rich's console."""
    from steer_heal_love.report import certificate

    return certificate.screen(folder)


def terminal_matrix(rows: Sequence[Any]) -> RenderableType:
    """Targets by personas (`certify.matrix`) for rich's console."""
    from steer_heal_love.report import matrix

    return matrix.table(rows)


def write_fight(runs: Sequence[Path], to: Path) -> None:
    """The page of one vaccinated run at `to`. Raises `UserError` for several runs: such a page is of one."""
    from steer_heal_love.report import fight_html

    if len(runs) > 1:
        raise UserError(
            "shl report: one of the runs was made with --fight, and its page is of that run alone; give it by itself."
        )
    fight_html.write(Path(runs[0]), to)


def terminal_fight(folder: Path) -> RenderableType:
    """What a vaccinated run prevented and still learned, for rich's console."""
    return fight.screen(folder)


__all__ = [
    "CERTIFICATE",
    "command",
    "preview",
    "progress",
    "terminal",
    "terminal_certificate",
    "terminal_comparison",
    "terminal_fight",
    "terminal_matrix",
    "terminal_sweep",
    "write",
    "write_certificate",
    "write_comparison",
    "write_fight",
    "write_inspect",
    "write_sweep",
]
