"""The settings of a comparison beside those of its runs: the strengths and the budgets, and where its workers are."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from steer_heal_love import limits


@dataclass(frozen=True)
class Grid:
    """A comparison: the strengths each kind of knob is measured at, rising, each a cell a seed; the budgets."""

    doses: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0, 1.5)
    """raw steering: multiples of the dose that the walk finds"""
    scales: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.5)
    """adapters: multiples of the update as trained"""
    beyond: tuple[float, ...] = (1.25, 1.5)
    """healed loop, past its last round: multiples of all rounds together"""
    shots: tuple[float, ...] = (1.0, 2.0, 4.0)
    """few-shot prompt: how many examples"""
    biases: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
    """null of one unconditional bias: multiples of the prompted models' mean logit difference"""
    coolings: tuple[float, ...] = (1.05, 1.1, 1.2, 1.35, 1.5, 2.0)
    """null of temperature: inverse temperatures"""
    budgets: tuple[float, ...] = (0.02, 0.05)
    """neutral_kl, nats/token, at which methods are compared"""
    own_budgets: tuple[float, ...] = (0.02, 0.05, 0.1)
    """own_excess, nats/token, at which methods are compared"""

    def mistakes(self) -> list[str]:
        """What is wrong, a line each."""
        out = []
        for f in dataclasses.fields(self):
            values = getattr(self, f.name)
            if not all(map(math.isfinite, values)):
                out.append(f"grid.{f.name}: finite numbers, found {values}")
            elif not values or list(values) != sorted({v for v in values if v > 0}):
                out.append(f"grid.{f.name}: numbers above 0, rising, found {values}")
        for name in ("beyond", "coolings"):
            if any(v <= 1 for v in getattr(self, name)):
                out.append(f"grid.{name}: above 1, found {getattr(self, name)}")
        if any(v != math.floor(v) for v in self.shots if math.isfinite(v)):
            out.append(f"grid.shots: whole numbers, found {self.shots}")
        return out

    def check(self) -> None:
        """Raise one `UserError` with everything that is wrong."""
        limits.refuse(self.mistakes())


@dataclass(frozen=True)
class Cluster:
    """What the executors `ray` and `submitit` are told of where they work."""

    address: str = ""
    """ray: HOST:PORT of a cluster, or auto for the one that this machine belongs to; empty begins one here"""
    kind: Literal["slurm", "local"] = "slurm"
    """submitit: jobs of SLURM, or processes here that imitate them"""
    partition: str = ""
    """submitit: SLURM's partition; empty takes its default"""
    minutes: int = 720
    """submitit: the most that one job may take; one that takes longer is sent again, and goes on"""
    cpus: int = 0
    """processors of one worker; 0 leaves it to the cluster"""
    gpus: int = 0
    """GPUs of one worker"""
    memory_gb: int = 0
    """submitit: memory of one worker; 0 leaves it to the cluster"""

    def check(self) -> None:
        """Raise one `UserError` with everything that is wrong."""
        found = [
            f"cluster.{n}: at least 0, found {getattr(self, n)}"
            for n in ("cpus", "gpus", "memory_gb")
            if getattr(self, n) < 0
        ]
        found += [f"cluster.minutes: at least 1, found {self.minutes}"] if self.minutes < 1 else []
        found += (
            [] if self.kind in ("slurm", "local") else [f"cluster.kind: slurm or local, found {self.kind!r}"]
        )
        limits.refuse(found)
