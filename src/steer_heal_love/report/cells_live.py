"""A sweep while it works: on a terminal one table that is drawn again, elsewhere a plain line for every change of a cell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from steer_heal_love.ground.shown import shown
from steer_heal_love.nouns import CellState, State
from steer_heal_love.report.bars import clock

ORDER: tuple[State, ...] = ("running", "failed", "stopped", "done", "waiting")
"""which states are shown first where not all cells fit on the screen"""
FRAME = 4
"""lines of the screen that aren't cells"""

Watch = Callable[[list[CellState]], None]


@contextmanager
def watched(console: Console) -> Iterator[Watch]:
    """What a sweep tells of its cells, shown as it changes."""
    if not console.is_terminal:
        yield lines(console)
        return
    with Live(console=console, auto_refresh=False) as live:
        yield lambda states: live.update(table(states, console.height), refresh=True)


def lines(console: Console) -> Watch:
    """A line when a cell is in another state than before, or with another worker; first how many there are."""
    known: dict[tuple[str, str, int, str], tuple[str, str]] = {}

    def tell(states: list[CellState]) -> None:
        if not known:
            console.print(counted(states), markup=False, highlight=False, soft_wrap=True)
        for c in states:
            axes, now = (c.persona, c.method, c.seed, c.model), (c.state, c.who)
            if known.get(axes, ("waiting", "")) != now:
                console.print(line(c), markup=False, highlight=False, soft_wrap=True)
            known[axes] = now

    return tell


def line(c: CellState) -> str:
    took = (
        f" after {clock(c.seconds)}"
        if c.state not in ("running", "waiting") and c.seconds == c.seconds
        else ""
    )
    by = f", {c.who}" if c.who else ""
    why = f": {c.why}" if c.why else ""
    return shown(f"{c.persona}, {c.method}, seed {c.seed}, {c.model}: {c.state}{took}{by}{why}")


def counted(states: list[CellState]) -> str:
    """How many cells are in which state."""
    n = Counter(c.state for c in states)
    return f"{len(states)} cells: " + ", ".join(f"{n[s]} {s}" for s in ORDER if n[s])


def table(states: list[CellState], height: int) -> RenderableType:
    """The counts, and as many cells as the screen has lines for."""
    out = Table(box=None, padding=(0, 1), header_style="dim")
    for name in ("persona", "method", "seed", "model", "state"):
        out.add_column(name, overflow="fold")
    out.add_column("time", justify="right")
    out.add_column("who", overflow="fold")
    first = sorted(states, key=lambda c: ORDER.index(c.state))
    rows = first[: max(height - FRAME, 1)]
    for c in rows:
        took = clock(c.seconds) if c.seconds == c.seconds else ""
        told = (c.persona, c.method, str(c.seed), c.model, c.state, took, c.who)
        out.add_row(*(Text(shown(x)) for x in told))
    rest = [Text(f"and {len(first) - len(rows)} more", style="dim")] if len(first) > len(rows) else []
    return Group(Text(counted(states), style="bold"), out, *rest)
