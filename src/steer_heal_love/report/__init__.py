"""Records in, files out: the only room that draws, from saved run folders alone.

`write` makes one self-contained HTML file and `trajectory.png` beside it, `terminal` one screen of text,
`progress` the bars while a run works. Each takes a run however far it came; undefined shows as a dash.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import RenderableType

from steer_heal_love.report.bars import progress
from steer_heal_love.report.read import read
from steer_heal_love.report.screen import summarise


def write(runs: list[Path], to: Path) -> None:
    """The report of one or several runs at `to`, and `trajectory.png` beside it.

    Raises `UserError` when a path holds no run.
    """
    from steer_heal_love.report import (
        html,
    )  # matplotlib takes a second to import; a run should start without it

    html.write([read(Path(run)) for run in runs], Path(to))


def terminal(run: Path) -> RenderableType:
    """A summary of the run for rich's console. Raises `UserError` when the path holds no run."""
    return summarise(read(Path(run)))


__all__ = ["progress", "terminal", "write"]
