"""Followers on a Ray cluster: an actor for each, on a GPU of any of its machines.

Ray finds the GPUs and starts the processes; what these say to each other goes the same way as on one machine
(`ground.team`). The leader is this process, on this machine's GPUs, which are kept from the actors. Each follower reads
the model by the name that the settings give, so that, and this package, must be there on every machine.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch.distributed as dist

from steer_heal_love.config import RunConfig
from steer_heal_love.ground.errors import UserError
from steer_heal_love.replicas import Ended, Plan, local, short

KNOCK_SECONDS = 5.0
ANSWER_SECONDS = 60.0
"""how long an actor may take to say how its process is"""


def plan(cfg: RunConfig, *, cuda: bool) -> Plan:
    """What the settings ask of the cluster. Raises `UserError` where Ray or enough of it isn't there."""
    ray = connected(cfg.ray)
    there = int(ray.cluster_resources().get("GPU" if cuda else "CPU", 0))
    count = cfg.replicas or max(there // cfg.split, 1)
    if count * cfg.split > there:
        kind = "GPUs" if cuda else "processors"
        raise UserError(short(count, cfg.split, f"the Ray cluster at {cfg.ray!r} has {there} {kind}"))
    return Plan(count, cfg.split, cuda, cfg.ray, cfg.trust_remote_code)


def connected(address: str) -> Any:
    """Ray, connected to the cluster. Raises `UserError` where it isn't installed or doesn't answer."""
    try:
        import ray
    except ImportError as e:
        raise UserError(
            "ray: the package is not installed; pip install 'steer-heal-love[ray]', or leave out --ray: "
            "--replicas uses this machine's GPUs without it."
        ) from e
    if ray.is_initialized():
        return ray
    try:
        knock(address)
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError) as e:
        raise UserError(
            f"ray: no cluster answers at {address!r} ({str(e).splitlines()[0]}); start one with `ray start --head`, "
            "or leave out --ray."
        ) from e
    return ray


def knock(address: str) -> None:
    """Raise `OSError` where nothing listens, which Ray itself would try for minutes; `UserError` for an address that
    names no machine of a cluster."""
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise UserError(
            f"ray: {address!r} is no address of a cluster's head; expected auto or HOST:PORT, from one of its machines."
        )
    socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS).close()


class Worker:
    """An actor: one follower's process, in the environment that Ray gave it."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="shl-follower-")
        self.process: subprocess.Popen[bytes] | None = None

    def place(self) -> list[int]:
        """The GPUs that this actor holds, by their numbers on its machine."""
        import ray

        return [int(i) for i in ray.get_gpu_ids()]

    def start(self, told: list[str]) -> None:
        self.process = local.launched([*local.PROGRAM, *told], dict(os.environ), self.log)

    @property
    def log(self) -> Path:
        return Path(self.folder.name) / "log"

    def ended(self) -> tuple[int, str]:
        """The process's code, 0 while it runs, and what it said last."""
        code = self.process.poll() if self.process else 0
        return code or 0, local.tail(self.log) if code else ""

    def stop(self, patience_seconds: float) -> None:
        if self.process:
            local.stopped(self.process, patience_seconds)


class Cluster:
    """The transport of a cluster: they meet at a port of this machine."""

    def __init__(self, plan: Plan) -> None:
        self.ray, self.plan = connected(plan.ray), plan
        self.workers: dict[int, Any] = {}
        self.held: Any = None
        self.asked: dict[int, Any] = {}

    def meeting(self, size: int) -> tuple[str, dist.Store]:
        host = self.ray.util.get_node_ip_address()
        store = dist.TCPStore(host, 0, is_master=True, wait_for_workers=False)
        return f"tcp:{host}:{store.port}", store

    def start(self, commands: dict[int, list[str]]) -> None:
        self.held = self.own_place()
        kind = self.ray.remote(**self.needs())(Worker)
        self.workers = {rank: kind.remote() for rank in commands}
        self.ray.get([self.workers[rank].start.remote(told) for rank, told in commands.items()])

    def needs(self) -> dict[str, Any]:
        return {"num_gpus": self.plan.split, "num_cpus": 0} if self.plan.cuda else {"num_cpus": 1}

    def own_place(self) -> Any:
        """An actor that does nothing but hold this machine's first GPUs, which the leader computes on."""
        if not self.plan.cuda:
            return None
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(self.ray.get_runtime_context().get_node_id(), soft=False)
        holder = self.ray.remote(**self.needs(), scheduling_strategy=here)(Worker).remote()
        found = self.ray.get(holder.place.remote())
        if found != list(range(self.plan.split)):
            raise UserError(
                f"ray: gave this run GPUs {found} of this machine, and it computes on {list(range(self.plan.split))}: "
                "something else holds those. Wait for it, or give fewer --replicas without --ray."
            )
        return holder

    def ended(self) -> list[Ended]:
        """As far as the actors have answered; each is asked again once it has."""
        out = []
        for rank, worker in self.workers.items():
            asked = self.asked.setdefault(rank, worker.ended.remote())
            ready, _ = self.ray.wait([asked], timeout=0)
            if ready:
                del self.asked[rank]
                out.append(self.answer(rank, asked))
        return [e for e in out if e.code]

    def answer(self, rank: int, asked: Any) -> Ended:
        try:
            return Ended(rank, *self.ray.get(asked, timeout=ANSWER_SECONDS))
        except (self.ray.exceptions.RayActorError, self.ray.exceptions.GetTimeoutError) as e:
            return Ended(rank, -1, f"its Ray actor is gone: {str(e).splitlines()[0]}")

    def stop(self, patience_seconds: float) -> None:
        going = [w.stop.remote(patience_seconds) for w in self.workers.values()]
        self.ray.wait(
            going, num_returns=len(going), timeout=patience_seconds + ANSWER_SECONDS
        ) if going else None
        for actor in [*self.workers.values(), *filter(None, [self.held])]:
            self.ray.kill(actor)
