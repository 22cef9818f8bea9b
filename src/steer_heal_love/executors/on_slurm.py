"""Jobs of a SLURM cluster, sent and watched by `submitit`. The folder must lie on a disk that all nodes share.

A job that SLURM ends (its time is over, its node fails, it is preempted) is lost, and is sent again by whoever asked for it.
`cluster.kind = "local"` runs the same jobs as processes of this machine, to try a sweep before it is sent.
"""

from __future__ import annotations

import shutil
import time
from typing import Any

from steer_heal_love.executors import Asked, Ended, Work, answered, attempted, executors, needs
from steer_heal_love.ground.errors import UserError

FOLDER = ".submitit"
"""what submitit itself writes, in the folder of the work"""


class OnSlurm:
    """One job a piece of work."""

    def __init__(self, asked: Asked):
        needs("submitit", "slurm")
        if asked.cluster.kind == "slurm" and shutil.which("sbatch") is None:
            raise UserError(
                "executor submitit: there is no SLURM here (no sbatch on the PATH). Run this on a login node of the "
                'cluster, or set cluster.kind = "local" to try it on this machine. Nothing was written.'
            )
        self.asked, self.slots, self.threads = asked, asked.workers, asked.cluster.cpus
        self.jobs: dict[str, Any] = {}
        self.sender: Any = None

    def submit(self, name: str, work: Work) -> None:
        self.sender = self.sender or sender(self.asked)
        self.jobs[name] = self.sender.submit(attempted, work)

    def ended(self, wait: float) -> list[Ended]:
        until = time.monotonic() + wait
        while not (ready := [n for n, job in self.jobs.items() if job.done()]) and time.monotonic() < until:
            time.sleep(min(0.2, wait))
        return [outcome(name, self.jobs.pop(name)) for name in ready]

    def close(self) -> None:
        for job in self.jobs.values():
            job.cancel()


def sender(asked: Asked) -> Any:
    """What sends jobs with the resources that the settings name."""
    import submitit

    at = asked.cluster
    out = submitit.AutoExecutor(folder=asked.folder / FOLDER, cluster=at.kind)
    told: dict[str, Any] = {"name": "steer-heal-love", "timeout_min": at.minutes}
    told |= {"cpus_per_task": at.cpus} if at.cpus else {}
    told |= {"gpus_per_node": int(at.gpus)} if at.gpus else {}
    told |= {"mem_gb": at.memory_gb} if at.memory_gb else {}
    told |= {"slurm_partition": at.partition} if at.partition else {}
    out.update_parameters(**told)
    return out


def outcome(name: str, job: Any) -> Ended:
    """How a job ended. One without any result was ended from outside; a failed one is a bug, and raises what it raised."""
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        return answered(name, job.result())
    except FailedJobError:
        raise
    except UncompletedJobError:
        return Ended(name, "lost", f"job {job.job_id} ended without a result ({job.state})")


@executors("submitit")
def on_slurm(asked: Asked) -> OnSlurm:
    return OnSlurm(asked)
