"""Processes on this machine: the default. Each holds what it loaded from one piece of work to the next."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from steer_heal_love.executors import Asked, Ended, Work, answered, attempted, executors

# Spawned: CUDA and OpenMP don't survive a fork.
SPAWN = get_context("spawn")


@dataclass(frozen=True)
class Hand:
    """A worker and the line to it."""

    process: BaseProcess
    line: Connection


class Local:
    """As many processes as workers, begun when they are first needed; one that dies takes only its own work along."""

    def __init__(self, asked: Asked):
        self.slots = asked.workers
        self.threads = max(1, (os.cpu_count() or 1) // asked.workers)
        self.idle: list[Hand] = []
        self.busy: dict[Connection, tuple[Hand, str]] = {}

    def submit(self, name: str, work: Work) -> None:
        self.idle = [h for h in self.idle if h.process.is_alive()]
        hand = self.idle.pop() if self.idle else hired()
        hand.line.send(work)
        self.busy[hand.line] = hand, name

    def ended(self, wait_seconds: float) -> list[Ended]:
        out = []
        ready = wait(list(self.busy), wait_seconds)
        for line in [line for line in self.busy if line in ready]:
            hand, name = self.busy.pop(line)
            try:
                out.append(answered(name, hand.line.recv()))
                self.idle.append(hand)
            except (EOFError, ConnectionResetError):
                out.append(Ended(name, "lost", death(hand)))
        return out

    def close(self) -> None:
        for hand in [*self.idle, *(h for h, _ in self.busy.values())]:
            hand.line.close()
        for hand, _ in self.busy.values():
            hand.process.kill()
        for hand in [*self.idle, *(h for h, _ in self.busy.values())]:
            hand.process.join()
        self.idle, self.busy = [], {}


def hired() -> Hand:
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()  # held here, it would hide that the worker has gone
    return Hand(process, ours)


def death(hand: Hand) -> str:
    """How a worker ended. Raises `RuntimeError` where it was an exception, which is a bug, and not a signal."""
    hand.process.join()
    code = hand.process.exitcode or 0
    if code > 0:
        raise RuntimeError(f"a worker ended with exit status {code}; what it raised is printed above")
    return f"worker {hand.process.pid} was ended by {signal.Signals(-code).name if code else 'itself'}"


def serve(line: Connection) -> None:
    """A worker's whole life: work, and say how it went. Ctrl-C is the parent's to hear, and its end ends the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    while True:
        try:
            work = line.recv()
        except EOFError:
            return
        line.send(attempted(work))


def end_with_parent() -> None:
    if parent := parent_process():
        parent.join()
        os._exit(1)


@executors("local")
def local(asked: Asked) -> Local:
    return Local(asked)
