"""The order of a sweep's work: benches handed to an executor, those whose worker died handed out again.

In: benches, the folder, an executor. Out: why cells failed, by their addresses; what is done lies in the folder. A lost
worker costs the cell that it was doing: the bench goes back to the front of the queue, and everything done stays done. A
cell that loses `TRIES` workers has failed, and its bench goes on without it.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from steer_heal_love.cells.plan import Bench, Cell
from steer_heal_love.cells.store import Store
from steer_heal_love.cells.work import work
from steer_heal_love.config import Grid
from steer_heal_love.executors import TRIES, Ended, Executor
from steer_heal_love.nouns import CellState, State

SKEW = 5.0
"""seconds by which the clocks of two machines may differ"""
WAIT = 1.0
"""seconds between two looks at the folder"""

Watch = Callable[[list[CellState]], None]


@dataclass
class Schedule:
    """A sweep under way."""

    benches: list[Bench]
    grid: Grid
    root: Path
    executor: Executor
    watch: Watch
    flying: dict[str, Bench] = field(default_factory=dict)
    losses: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    stopped: set[str] = field(default_factory=set)
    ends: dict[str, CellState] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store, self.since = Store(self.root), time.time()
        self.waiting = deque(b for b in self.benches if self.left(b))

    def left(self, bench: Bench) -> list[Cell]:
        """The bench's cells that are neither done nor failed, in the order in which a worker takes them."""
        for cell in bench.cells:
            if cell.key not in self.done and (row := self.store.record(bench, cell)):
                self.done.add(cell.key)
                self.stopped |= {cell.key} if row["stopped"] and not row["strengths"] else set()
        return [c for c in bench.cells if c.key not in self.done and c.key not in self.failed]

    def through(self) -> dict[str, str]:
        """Until nothing is left: why cells failed, by address."""
        while self.waiting or self.flying:
            while self.waiting and len(self.flying) < self.executor.slots:
                self.hand_out(self.waiting.popleft())
            self.watch(self.states())
            for ended in self.executor.ended(WAIT):
                self.settle(self.flying.pop(ended.name), ended)
        self.watch(self.states())
        return self.failed

    def hand_out(self, bench: Bench) -> None:
        but = frozenset(c.key for c in bench.cells if c.key in self.failed)
        self.executor.submit(
            bench.key, partial(work, bench, self.grid, self.root, self.executor.threads, but)
        )
        self.flying[bench.key] = bench

    def settle(self, bench: Bench, ended: Ended) -> None:
        """What becomes of a bench whose piece of work has ended."""
        left = self.left(bench)
        if ended.how == "failed":
            self.failed |= {c.key: ended.why for c in left}
        elif left:  # its worker died; or a shared disk doesn't show yet what one that is done has written
            under_way = left[0]
            self.losses[under_way.key] += 1
            if self.losses[under_way.key] == TRIES:
                why = ended.why or "it says that it is done, and its record can't be seen from here"
                self.failed[under_way.key] = f"{TRIES} workers tried, the last one ended so: {why}"
            if self.left(bench):
                self.waiting.appendleft(bench)

    def states(self) -> list[CellState]:
        """Every cell as it stands now."""
        return [state for bench in self.benches for state in self.of(bench)]

    def of(self, bench: Bench) -> list[CellState]:
        left = self.left(bench) if bench.key in self.flying else []
        return [self.state(cell, running=bool(left) and cell == left[0]) for cell in bench.cells]

    def state(self, cell: Cell, *, running: bool) -> CellState:
        if cell.key in self.ends:
            return self.ends[cell.key]
        over = cell.key in self.done or cell.key in self.failed
        log = self.store.log(cell).read() if running or over else []
        last = [e for e in log if e["event"] == "began" and (over or e["t"] > self.since - SKEW)][-1:]
        until = [e["t"] for e in log if e["event"] == "done"] if over else [time.time()]
        how = self.how(cell, running=bool(last))
        seconds = until[-1] - last[0]["t"] if last and until else math.nan
        who, why = (str(last[0].get("who", "")) if last else ""), self.failed.get(cell.key, "")
        found = CellState(cell.persona, cell.method, cell.seed, cell.model, how, seconds, who, why)
        if over:
            self.ends[cell.key] = found
        return found

    def how(self, cell: Cell, *, running: bool) -> State:
        if cell.key in self.failed:
            return "failed"
        if cell.key in self.done:
            return "stopped" if cell.key in self.stopped else "done"
        return "running" if running else "waiting"
