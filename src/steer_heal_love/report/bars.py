"""Progress for whoever watches: on a terminal bars with the time left, elsewhere a plain line as each step begins and
one as it ends. Either way what is done in plain words, and what the models answer meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from steer_heal_love.config import RunConfig
from steer_heal_love.ground.progress import Advance, Track
from steer_heal_love.ground.shown import shown
from steer_heal_love.report.forecast import Forecast, name, said

Start = Callable[[str, int], tuple[Advance, Callable[[], None]]]
DOES = {
    "load": "read the model's weights",
    "vector": "find the direction in which the model's states differ between the persona and its opposite",
    "first look": "ask one question, without the vector and with it",
    "base: anchor": "write the answers that training is held to, so that the model stays itself",
    "base: neutral": "write the answers on which drift will be measured",
    "base: calibration": "write plain answers, which show what this model's coherent text looks like",
    "base: states": "keep the model's view of its own answers, to compare later models with",
    "choose the prompt's wording": "find the system prompt that brings out the persona best",
    "nulls": "see what a bias on words or a temperature alone would reach",
    "generate": "write answers with the vector added, at several doses",
    "filter": "read every answer as the plain model finds it, to drop what is broken or off the persona",
    "teacher": "read the kept answers with the vector and against it, for what the training aims at",
    "heal": "train a LoRA on the answers that were kept",
    "trust region": "shrink what was trained until the model's drift is inside its budget",
    "look": "ask the same question again, steered and healed",
    "evaluate base": "measure the plain model",
    "evaluate prompt": "measure the plain model told by a system prompt to be the persona",
    "evaluate steered": "measure the model with the vector added",
    "evaluate healed": "measure the model that was trained, without any vector",
    "transfer": "compare how the trained model moved by itself with the vector",
}
"""what each step does, in plain words"""


@contextmanager
def progress(console: Console | None = None, cfg: RunConfig | None = None) -> Iterator[Track]:
    """A `Track` for the steps of a run; its bars leave when the step or the block ends, also by an exception. With the
    run's settings it says how much time is left of the whole."""
    console, forecast = console or Console(), Forecast(cfg) if cfg else None
    if not console.is_terminal:
        yield tracker(console, lines(console), forecast)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:

        def start(label: str, total: int) -> tuple[Advance, Callable[[], None]]:
            task = bars.add_task(shown(label), total=total)
            if doing := does(label):
                bars.console.print(f"  {shown(label)}: {doing}", style="dim", markup=False, highlight=False)
            return lambda n: bars.advance(task, n), lambda: bars.remove_task(task)

        yield tracker(console, start, forecast)


def does(label: str) -> str:
    """What a step does, in plain words; nothing for one that isn't known."""
    first, _, rest = label.partition(": ")
    step = rest.split(" at ")[0] if first.startswith("round ") else name(label)[1]
    return DOES.get(step, "")


def lines(console: Console) -> Start:
    """No bars: a line as a step begins."""

    def start(label: str, _total: int) -> tuple[Advance, Callable[[], None]]:
        console.print(
            f"{shown(label)}: {does(label) or 'begins'}", markup=False, highlight=False, soft_wrap=True
        )
        return lambda _n: None, lambda: None

    return start


def tracker(console: Console, start: Start, forecast: Forecast | None = None) -> Track:
    """Wrap a bar (or none): when its step ends, one line says what took how long, and how long the run will take."""

    @contextmanager
    def track(label: str, total: int) -> Iterator[Advance]:
        began, how = time.perf_counter(), "stopped after"
        if forecast:
            forecast.began(label)
        advance, stop = start(label, total)
        try:
            yield advance
            how = ""
        finally:
            stop()
            seconds = time.perf_counter() - began
            if forecast:
                forecast.ended(label, seconds)
            took = f"{how} {clock(seconds)}".strip()
            left = said(forecast.seconds_left()) if forecast and not how else ""
            console.print(
                Text(f"  {shown(label):<36} {took:>10}  {left}".rstrip()), soft_wrap=not console.is_terminal
            )

    return track


def clock(seconds: float) -> str:
    """Seconds as 8.2 s, 2 min 05 s or 1 h 03 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
