"""`shl sweep`: every cell of a file's axes, on as many workers as there are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from steer_heal_love.cli import screen
from steer_heal_love.ground.errors import resumable


def sweep(
    file: tyro.conf.Positional[Path],
    out: Path | None = None,
    executor: Annotated[str, tyro.conf.arg(aliases=["--engine"])] = "",
    workers: int = 0,
    trust_remote_code: bool = False,
) -> None:
    """Measure every persona × method × seed × model that a file names, and report. Continues with the results in --out.

    Args:
        file: the axes and settings, as TOML
        out: the folder of the sweep; when none is given, sweeps/ and the file's name
        executor: who does the work: local (processes here), ray or submitit (SLURM); when not given, the file decides
        workers: how many workers at the same time; when 0, the file decides
        trust_remote_code: run code that ships with the models; a file never decides that
    """
    with screen.importing():
        from steer_heal_love import cells, report
        from steer_heal_love.report.cells_live import watched

    asked = cells.asked(file, executor=executor, workers=workers, trust_remote_code=trust_remote_code)
    to = out or Path("sweeps") / file.stem
    with resumable("the same shl sweep"), watched(screen.out) as watch:
        cells.run(asked, to, watch)
    screen.out.print(report.terminal_sweep(to))
    screen.tell(to / "sweep.html")
