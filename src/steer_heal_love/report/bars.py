"""Progress for whoever watches: on a terminal bars with the time left, elsewhere a plain line a finished step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from steer_heal_love.ground.progress import Advance, Track
from steer_heal_love.ground.shown import shown


@contextmanager
def progress(console: Console | None = None) -> Iterator[Track]:
    """A `Track` for the steps of a run; its bars leave when the step or the block ends, also by an exception."""
    console = console or Console()
    if not console.is_terminal:
        yield tracker(console, lambda _label, _total: (lambda _n: None, lambda: None))
        return
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bars:

        def start(label: str, total: int) -> tuple[Advance, Callable[[], None]]:
            task = bars.add_task(shown(label), total=total)
            return lambda n: bars.advance(task, n), lambda: bars.remove_task(task)

        yield tracker(console, start)


def tracker(console: Console, start: Callable[[str, int], tuple[Advance, Callable[[], None]]]) -> Track:
    """Wrap a bar (or none): when its step ends, one line says what took how long."""

    @contextmanager
    def track(label: str, total: int) -> Iterator[Advance]:
        began, how = time.perf_counter(), "stopped after"
        advance, stop = start(label, total)
        try:
            yield advance
            how = ""
        finally:
            stop()
            took = f"{how} {clock(time.perf_counter() - began)}".strip()
            console.print(Text(f"  {shown(label):<36} {took:>10}"), soft_wrap=not console.is_terminal)

    return track


def clock(seconds: float) -> str:
    """Seconds as 8.2 s, 2 min 05 s or 1 h 03 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
