"""A Ray cluster, or one that is begun here for as long as the work lasts. All nodes must see the same folder.

Ray: Moritz et al. 2018, arXiv 1712.05889.
"""

from __future__ import annotations

import logging
import socket
from typing import Any

from steer_heal_love.executors import Asked, Ended, Work, answered, attempted, executors, needs
from steer_heal_love.ground.errors import UserError

PATIENCE = 5.0
"""seconds that a cluster's address has to answer in"""


class OnRay:
    """One task a piece of work, with the processors and GPUs that the settings name. A dead task isn't tried again by Ray."""

    def __init__(self, asked: Asked):
        needs("ray", "ray")
        import ray

        at = asked.cluster
        self.slots, self.threads, self.ray = asked.workers, at.cpus, ray
        self.refs: dict[Any, str] = {}
        connect(ray, asked)
        self.task = ray.remote(num_cpus=at.cpus or 1, num_gpus=at.gpus, max_retries=0)(attempted)

    def submit(self, name: str, work: Work) -> None:
        self.refs[self.task.remote(work)] = name

    def ended(self, wait: float) -> list[Ended]:
        self.ray.wait(list(self.refs), num_returns=1, timeout=wait)
        ready, _ = self.ray.wait(list(self.refs), num_returns=len(self.refs), timeout=0)
        return [self.outcome(ref, self.refs.pop(ref)) for ref in ready]

    def outcome(self, ref: Any, name: str) -> Ended:
        gone = self.ray.exceptions
        try:
            return answered(name, self.ray.get(ref))
        except (
            gone.WorkerCrashedError,
            gone.NodeDiedError,
            gone.OutOfMemoryError,
            gone.ObjectLostError,
        ) as e:
            return Ended(name, "lost", f"{type(e).__name__}: {str(e).splitlines()[0]}")

    def close(self) -> None:
        for ref in self.refs:
            self.ray.cancel(ref, force=True)
        self.ray.shutdown()


def connect(ray: Any, asked: Asked) -> None:
    """To the cluster at the address, or to one begun here. Raises `UserError` where none answers."""
    address = asked.cluster.address
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if not address:
        per_task = max(asked.cluster.cpus, 1)
        ray.init(num_cpus=asked.workers * per_task, include_dashboard=False, **quiet)
        return
    if address != "auto":
        answers(address)
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as e:
        raise UserError(
            f"cluster.address: no Ray cluster answers at {address!r}: {str(e)[:200]} {HELP}"
        ) from e


HELP = (
    "Begin one with `ray start --head` and give its HOST:PORT, or leave the address out for a cluster on this machine. "
    "Nothing was written."
)


def answers(address: str) -> None:
    """Raise `UserError` unless somebody listens there: Ray itself would try for a minute."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(
            f"cluster.address: expected HOST:PORT or auto, found {address!r}. Nothing was written."
        )
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()
    except OSError as e:
        raise UserError(f"cluster.address: nothing answers at {address!r}: {e.strerror or e}. {HELP}") from e


@executors("ray")
def on_ray(asked: Asked) -> OnRay:
    return OnRay(asked)
