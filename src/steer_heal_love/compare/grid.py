"""At which strengths each kind of knob is measured, and at which budgets frontiers are compared."""

from __future__ import annotations

from dataclasses import dataclass, fields

from steer_heal_love.ground.errors import UserError


@dataclass(frozen=True)
class Grid:
    """Strengths in rising order; each becomes one cell a seed."""

    doses: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0, 1.5)
    """raw steering: multiples of the dose that the walk finds"""
    scales: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.5)
    """adapters: multiples of the update as trained"""
    beyond: tuple[float, ...] = (1.25, 1.5)
    """healed loop, past its last round: multiples of all rounds together"""
    shots: tuple[float, ...] = (1.0, 2.0, 4.0)
    """few-shot prompt: how many examples"""
    budgets: tuple[float, ...] = (0.02, 0.05)
    """neutral_kl, nats/token, at which methods are compared"""
    own_budgets: tuple[float, ...] = (0.02, 0.05, 0.1)
    """own_excess, nats/token, at which methods are compared"""

    def mistakes(self) -> list[str]:
        """What is wrong, a line each."""
        out = []
        for f in fields(self):
            values = getattr(self, f.name)
            if not values or list(values) != sorted({v for v in values if v > 0}):
                out.append(f"grid.{f.name}: numbers above 0, rising, found {values}")
        if any(v <= 1 for v in self.beyond):
            out.append(f"grid.beyond: above 1, found {self.beyond}")
        if any(v != int(v) for v in self.shots):
            out.append(f"grid.shots: whole numbers, found {self.shots}")
        return out

    def check(self) -> None:
        """Raise one `UserError` with everything that is wrong."""
        if found := self.mistakes():
            raise UserError("settings out of range:\n" + "\n".join(f"  {m}" for m in found))
