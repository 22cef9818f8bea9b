"""One run on several copies of its model: which are asked for, whether they can be had, and the team that they make.

In: the settings `replicas`, `split` and `ray`. Out: a context in which `ground.team` shares rows out. This process is
number 0; the others are started in it, get the run folder as it is, and resume it in a scratch folder of their own, so
that they do every step that this one does. They end with it, however it ends.
A way to start processes is one file here: `local` on this machine's devices, `ray` on a cluster's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
import torch.distributed as dist

from steer_heal_love.config import RunConfig
from steer_heal_love.ground import team
from steer_heal_love.ground.devices import known_device
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.team import Lost

PATIENCE_SECONDS, POLL_SECONDS = 10.0, 0.05
"""how long followers may take to end after their leader; how often they are looked at while they come"""
UNSENT = (".lock", "report.html", "trajectory.png")
"""files of a run folder that no follower needs"""


@dataclass(frozen=True)
class Ended:
    """A follower that ended before its time."""

    rank: int
    code: int
    said: str


class Transport(Protocol):
    """How followers are started, where they meet the leader, and how they are ended."""

    def meeting(self, size: int) -> tuple[str, dist.Store]:
        """The meeting place: as followers are told it, and as the leader holds it."""

    def start(self, commands: dict[int, list[str]]) -> None:
        """Start a follower for each rank, with these arguments of `steer_heal_love.follower`."""

    def ended(self) -> list[Ended]:
        """Those that ended with an error."""

    def stop(self, patience_seconds: float) -> None:
        """End all of them; those that end by themselves get so long."""


@dataclass(frozen=True)
class Plan:
    """How many copies, on how many GPUs each, started how."""

    count: int
    split: int
    cuda: bool
    ray: str
    trust_remote_code: bool

    def transport(self) -> Transport:
        if self.ray:
            from steer_heal_love.replicas import ray

            return ray.Cluster(self)
        from steer_heal_love.replicas import local

        return local.Machine(self)


def plan(cfg: RunConfig) -> Plan:
    """What the settings ask for. Raises `UserError` for what isn't there."""
    device = known_device(cfg.device)
    cuda = device.startswith("cuda")
    if (cfg.replicas != 1 or cfg.split > 1) and ":" in device:
        raise UserError(
            f"device {device!r} names one GPU, and replicas and split take several: give --device cuda."
        )
    if cfg.split > 1 and not cuda:
        raise UserError(f"split: {cfg.split} GPUs a copy, and the device is {device!r}; give --split 1.")
    if cfg.ray:
        from steer_heal_love.replicas import ray

        return ray.plan(cfg, cuda=cuda)
    here, kind = (torch.cuda.device_count(), "GPUs") if cuda else (os.cpu_count() or 1, "processors")
    if device == "mps":
        here, kind = 1, "GPU"
    count = cfg.replicas or (max(here // cfg.split, 1) if cuda else 1)
    if count * cfg.split > max(here, 1):
        raise UserError(short(count, cfg.split, f"torch finds {here} {kind} on this machine"))
    return Plan(count, cfg.split, cuda, "", cfg.trust_remote_code)


def refuse(cfg: RunConfig, what: str) -> None:
    """Raise `UserError` where more than one copy is asked for by `what` computes on one."""
    if cfg.replicas != 1 or cfg.ray:
        raise UserError(f"replicas: only shl run shares its rows out, and not {what}. Give --replicas 1.")


def short(count: int, split: int, found: str) -> str:
    """What is said where more is asked for than there is."""
    each = f" on {split} GPUs each" if split > 1 else ""
    return (
        f"replicas: {count} asked for{each}, and {found}. Give fewer, or --replicas 0 for as many as there are GPUs; "
        "--ray ADDRESS takes those of a Ray cluster."
    )


def together(cfg: RunConfig, folder: Path) -> AbstractContextManager[None]:
    """A context in which the run in `folder` is spread over what `cfg` asks for; nothing where this process follows."""
    if team.size() > 1:
        return nullcontext()
    found = plan(cfg)
    return _led(found, folder) if found.count > 1 else nullcontext()


@contextmanager
def _led(found: Plan, folder: Path) -> Iterator[None]:
    """Followers that have got the run folder, ended on every way out."""
    with met(found, found.transport(), lambda ended: lost(ended, found.count, folder)):
        team.same_folder(folder, without=UNSENT)
        yield


@contextmanager
def met(found: Plan, transport: Transport, died: Callable[[Ended], str]) -> Iterator[None]:
    """Start followers, be their leader, and end them on every way out. `died`: what is said of one that has."""
    patience = 0.0

    def alive() -> None:
        if ended := transport.ended():
            raise Lost(died(ended[0]))

    try:
        address, store = transport.meeting(found.count)
        transport.start({rank: arguments(found, rank, address) for rank in range(1, found.count)})
        while not store.check([hello(rank) for rank in range(1, found.count)]):
            alive()
            time.sleep(POLL_SECONDS)
        with team.joined(0, found.count, store, cuda=found.cuda, alive=alive):
            yield
        patience = PATIENCE_SECONDS
    finally:
        transport.stop(patience)


def arguments(found: Plan, rank: int, address: str) -> list[str]:
    """What a follower is told on its command line."""
    told = ["--rank", str(rank), "--size", str(found.count), "--meet", address, "--split", str(found.split)]
    return [*told, *["--cuda"] * found.cuda, *["--trust-remote-code"] * found.trust_remote_code]


def hello(rank: int) -> str:
    """The key that a follower leaves at the meeting place."""
    return f"hello {rank}"


def lost(ended: Ended, count: int, folder: Path) -> str:
    """What is said when a follower has died."""
    how = f"was killed by signal {-ended.code}" if ended.code < 0 else f"ended with code {ended.code}"
    said = f" It said:\n{ended.said}" if ended.said else ""
    return (
        f"replica {ended.rank} of 0 to {count - 1} {how}; everything up to the last finished step is kept. "
        f"To go on: shl run --resume {folder}, with --replicas 1 if it can't be helped.{said}"
    )
