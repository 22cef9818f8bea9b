"""Who does the work of a comparison or a sweep: processes here, a Ray cluster, or SLURM.

In: pieces of work, each a callable that can be sent to another process, by name. Out: how each ended. An executor is one
file here with `@executors(NAME)`, and knows nothing of what it runs:

    submit(name, work)   begin a piece of work; the caller keeps at most `slots` under way
    ended(wait)          what has ended since, after at most `wait` seconds
    close()              end whatever is still under way

A piece whose worker died (killed, out of memory, its machine gone) has ended `lost`, and no other piece with it: what
becomes of it is the caller's to say. A `UserError` inside is `failed` with its message. Any other exception is a bug, and
is raised here. What a piece of work makes lies in files, on a disk that all workers share; nothing is handed back.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

from steer_heal_love.config import Cluster
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.registry import Registry

Work = Callable[[], object]


@dataclass(frozen=True)
class Ended:
    """How a piece of work ended: done, lost with its worker, or failed by what the user can fix."""

    name: str
    how: Literal["done", "lost", "failed"]
    why: str = ""


class Executor(Protocol):
    slots: int
    """pieces of work under way at the same time"""
    threads: int
    """processor threads that a piece of work should take; 0 leaves that to where it runs"""

    def submit(self, name: str, work: Work) -> None: ...

    def ended(self, wait: float) -> list[Ended]: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Asked:
    """What an executor is made of: how many workers, what a cluster is told, a folder that workers see too."""

    workers: int
    cluster: Cluster
    folder: Path


executors: Registry[Callable[[Asked], Executor]] = Registry("executor", "steer_heal_love.executors")


@contextmanager
def opened(name: str, asked: Asked) -> Iterator[Executor]:
    """The executor of that name, ready for work. Nothing is written yet.

    Raises `UserError` for a name that is none, for one that isn't installed, and where its cluster doesn't answer.
    """
    make = executors[name]
    if asked.workers < 1:
        raise UserError(f"workers: at least 1, found {asked.workers}.")
    executor = make(asked)
    try:
        yield executor
    finally:
        executor.close()


TRIES = 3
"""workers that a piece of work may lose"""


def finished(executor: Executor, work: Mapping[str, Work], advance: Callable[[int], None]) -> None:
    """Do all of it, those that were lost again; `advance` is told of each that is done.

    Raises `UserError` for the first that failed, or that lost too many workers.
    """
    waiting, flying, losses = deque(work), 0, Counter[str]()
    while waiting or flying:
        while waiting and flying < executor.slots:
            name = waiting.popleft()
            executor.submit(name, work[name])
            flying += 1
        for ended in executor.ended(1.0):
            flying -= 1
            losses[ended.name] += ended.how == "lost"
            if ended.how == "failed" or losses[ended.name] == TRIES:
                raise UserError(f"{ended.name}: {ended.why}")
            if ended.how == "lost":
                waiting.append(ended.name)
            else:
                advance(1)


def attempted(work: Work) -> str:
    """Do the work; nothing, or what the user can fix. It runs where the worker is, and its answer is sent back."""
    try:
        work()
    except UserError as e:
        return str(e) or "no reason given"
    return ""


def answered(name: str, why: str) -> Ended:
    """How a piece of work ended that gave an answer."""
    return Ended(name, "failed" if why else "done", why)


def needs(package: str, extra: str) -> None:
    """Raise `UserError` unless the package of an extra is installed."""
    if find_spec(package) is None:
        raise UserError(
            f"executor {extra if extra == 'ray' else 'submitit'}: the package {package} is not installed: "
            f"pip install 'steer-heal-love[{extra}]', or take --executor local. Nothing was written."
        )


__all__ = [
    "TRIES",
    "Asked",
    "Ended",
    "Executor",
    "Work",
    "answered",
    "attempted",
    "executors",
    "finished",
    "needs",
    "opened",
]
