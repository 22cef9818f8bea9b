"""How long a sweep takes on several workers of which some die: simulated, with and without going on where a cell stopped.

In: the steps of a cell with their measured seconds, workers, a failure rate an hour of work, the seconds of a start. A
worker takes the next waiting cell, does its steps one after the other, and dies after a time drawn from an exponential
distribution (a Poisson process of failures). Its cell goes back to the front of the queue: begun again, or gone on with at
the step that was under way, as the run folders allow. Out: hours until the last cell is done, and the share of all working
hours that was lost.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Night:
    """One simulated sweep: hours to its end, failures, and the share of the workers' hours that did no lasting work."""

    hours: float
    failures: int
    lost: float


@dataclass(frozen=True)
class Room:
    """A room's measured seconds, as factors of their median; a step's own factor is one of them."""

    factors: tuple[float, ...]


def cell(steps: list[tuple[float, Room]], rng: random.Random) -> list[float]:
    """A cell's steps in seconds, each drawn from what was measured of its room."""
    return [seconds * rng.choice(room.factors) for seconds, room in steps]


def night(
    cells: list[list[float]],
    *,
    workers: int,
    failures_per_hour: float,
    start: float,
    resumes: bool,
    rng: random.Random,
) -> Night:
    """One sweep. Without failures and with one worker its hours are those of the cells and their starts."""
    waiting = deque((0, steps) for steps in cells)
    free = [0.0] * workers
    heapq.heapify(free)
    flying: list[tuple[float, int, int, list[float] | None]] = []
    end, worked, failures, ticket = 0.0, 0.0, 0, 0
    while waiting or flying:
        while waiting and free:
            now = heapq.heappop(free)
            done, steps = waiting.popleft()
            fails = rng.expovariate(failures_per_hour) * 3600 if failures_per_hour else float("inf")
            takes = start + sum(steps[done:])
            left = None if fails >= takes else steps
            reached = done if left is None or not resumes else survived(steps, done, fails - start)
            worked += min(fails, takes)
            ticket += 1
            heapq.heappush(flying, (now + min(fails, takes), ticket, reached, left))
        now, _, reached, left = heapq.heappop(flying)
        heapq.heappush(free, now)
        end = max(end, now)
        if left is not None:
            failures += 1
            waiting.appendleft((reached, left))
    useful = sum(map(sum, cells))
    return Night(end / 3600, failures, 1 - useful / worked)


def survived(steps: list[float], done: int, seconds: float) -> int:
    """How many steps are done after so many seconds of work from step `done` on."""
    for i in range(done, len(steps)):
        seconds -= steps[i]
        if seconds < 0:
            return i
    return len(steps)


def simulated(
    steps: list[tuple[float, Room]], cells: int, seeds: int, **how: float | bool
) -> tuple[np.ndarray, np.ndarray]:
    """[seeds] hours and [seeds] shares lost, each seed its own cells and failures; the same cells however they resume."""
    nights = []
    for seed in range(seeds):
        rng = random.Random(seed)
        drawn = [cell(steps, rng) for _ in range(cells)]
        nights.append(night(drawn, rng=rng, **how))  # type: ignore[arg-type]
    return np.array([n.hours for n in nights]), np.array([n.lost for n in nights])


def interval(values: np.ndarray, form: Callable[[float], str]) -> str:
    """The mean, and where 95% of the simulated nights lie."""
    lo, hi = np.quantile(values, [0.025, 0.975])
    return f"{form(float(values.mean()))} [{form(float(lo))}, {form(float(hi))}]"
