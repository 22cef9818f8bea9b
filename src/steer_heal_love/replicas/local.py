"""Followers on this machine: a process for each, on GPUs of its own, or sharing out the processors."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist

import steer_heal_love
from steer_heal_love.replicas import Ended, Plan

LOOPBACK = {"linux": "lo", "darwin": "lo0"}
"""the network interface that nobody outside this machine reaches"""
NETWORKS = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
PROGRAM = (sys.executable, "-m", "steer_heal_love.follower")
TIDY_SECONDS = 3.0
"""how long a follower may take to clear up"""
SAID = 1500
"""characters of what a follower said that are passed on when it died"""


class Machine:
    """The transport of one machine: they meet in a private folder, and speak through the loopback interface."""

    def __init__(self, plan: Plan, program: Sequence[str] = PROGRAM) -> None:
        self.plan, self.program = plan, program
        self.folder = tempfile.TemporaryDirectory(prefix="shl-replicas-")
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.before: dict[str, str | None] = {}
        self.threads = torch.get_num_threads()

    def meeting(self, size: int) -> tuple[str, dist.Store]:
        path = Path(self.folder.name) / "meet"
        if sys.platform in LOOPBACK:
            for name in NETWORKS:
                self.before[name] = os.environ.get(name)
                os.environ.setdefault(name, LOOPBACK[sys.platform])
        return f"file:{path}", dist.FileStore(str(path), size)

    def start(self, commands: dict[int, list[str]]) -> None:
        # GPUs' processes compute on the host too, and threads that outnumber the processors wait for each other.
        torch.set_num_threads(max(self.threads // self.plan.count, 1))
        for rank, told in commands.items():
            self.processes[rank] = launched([*self.program, *told], self.environment(rank), self.log(rank))

    def environment(self, rank: int) -> dict[str, str]:
        """The leader's, but for which devices are seen and how many threads compute."""
        env = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
        if not self.plan.cuda:
            return env
        seen = env.get("CUDA_VISIBLE_DEVICES", "")
        every = seen.split(",") if seen else [str(i) for i in range(torch.cuda.device_count())]
        own = every[rank * self.plan.split : (rank + 1) * self.plan.split]
        return env | {"CUDA_VISIBLE_DEVICES": ",".join(own)}

    def log(self, rank: int) -> Path:
        return Path(self.folder.name) / f"{rank}.log"

    def ended(self) -> list[Ended]:
        codes = {rank: p.poll() for rank, p in self.processes.items()}
        return [Ended(rank, code, tail(self.log(rank))) for rank, code in codes.items() if code]

    def stop(self, patience_seconds: float) -> None:
        end = time.monotonic() + patience_seconds
        for process in self.processes.values():
            stopped(process, max(end - time.monotonic(), 0))
        for name, value in self.before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        torch.set_num_threads(self.threads)
        self.folder.cleanup()


def launched(argv: list[str], env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """A follower that ends when the pipe to its input closes, whatever becomes of the one who holds that."""
    root = str(Path(steer_heal_love.__file__).parents[1])
    env = env | {"PYTHONPATH": os.pathsep.join(filter(None, [root, env.get("PYTHONPATH", "")]))}
    with log.open("wb") as out:
        return subprocess.Popen(
            argv,
            env=env,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def stopped(process: subprocess.Popen[bytes], patience_seconds: float) -> None:
    """End a follower that doesn't end by itself: by closing its input, and by force where that isn't enough."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience_seconds)
    if process.stdin:
        process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(TIDY_SECONDS)
    process.kill()
    process.wait()


def tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace").strip()[-SAID:] if log.is_file() else ""
