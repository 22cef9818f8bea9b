"""What the gates read: stages with their items, and what the filter and the heal recorded, a row a round.

Off target: with T_i the mean signed shift of vignette i along the foundations that the persona declares, and O_i
its shift along one that it doesn't, the target moves further when mean(T − O) and mean(T + O) are both above 0.
*Surgical* claims that of every such axis at once, so that each interval may keep the whole error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from steer_heal_love.ground.halves import Halves, halves, measured
from steer_heal_love.ground.stats import bootstrap, paired, subtract
from steer_heal_love.nouns import FOUNDATIONS, Persona, Score, Stage

LOOPING = 0.3
"""share of repeated word trigrams past which text goes in circles, however likely the base finds it"""


@dataclass(frozen=True)
class Precision:
    """How much further the target moved than the axis outside the intent that comes closest to it."""

    axis: str
    gap: Score

    @property
    def surgical(self) -> bool:
        return self.gap.lo > 0


@dataclass(frozen=True)
class Evidence:
    """A run so far. `floor`: own_excess in nats/token past which a healed model's text is incoherent."""

    persona: Persona
    stages: list[Stage]
    rounds: list[dict[str, Any]] = field(default_factory=list)
    resamples: int = 2000
    floor: float = 0.5

    def has(self, *names: str) -> bool:
        """Whether every stage has these scores, and defined."""
        return all(n in s.scores and math.isfinite(s.scores[n].mean) for s in self.stages for n in names)

    def get(self, stage: str, round: int) -> Stage | None:
        return next((s for s in self.stages if s.stage == stage and s.round == round), None)

    def last(self, stage: str) -> Stage | None:
        return next((s for s in reversed(self.stages) if s.stage == stage), None)

    @property
    def healings(self) -> dict[int, dict[str, Any]]:
        """The heals' records by round."""
        return {r["round"]: r["healing"] for r in self.rounds if r.get("healing")}

    def incoherent(self, s: Stage, slack: float = 1.0) -> bool:
        """The absolute floor: text too odd for the base, or going in circles."""
        odd, loops = (s.scores.get(name, Score.undefined()) for name in ("own_excess", "repetition"))
        return odd.mean > slack * self.floor or loops.mean > LOOPING

    def shift(self, s: Stage, item: str, looks: int = 1) -> Score:
        """Shift of a stage from base, its interval one of `looks` that are read at once."""
        base = self.stages[0].items[item]
        return paired(s.items[item], base, resamples=self.resamples, looks=looks)

    def versus(self, a: Stage, b: Stage, item: str = "trait", looks: int = 1) -> Score:
        """a − b, paired by item."""
        return paired(a.items[item], b.items[item], resamples=self.resamples, looks=looks)

    def halves(self, a: Stage, b: Stage) -> Halves | None:
        """a's lead over b on the trait and on both halves of it; None where the halves were not measured."""
        if not measured(a.items, b.items):
            return None
        return halves(a.items, b.items, resamples=self.resamples)

    def beyond(self, a: Stage, b: Stage, item: str, share: float) -> Score:
        """How far a's shift from base lies above a share of b's: the honest reading of their ratio."""
        base = self.stages[0].items[item]
        ours, theirs = subtract(a.items[item], base), subtract(b.items[item], base)
        contrast = [x - share * y for x, y in zip(ours, theirs, strict=True)]
        return bootstrap(contrast, resamples=self.resamples)

    def intended(self, s: Stage) -> dict[str, int]:
        """The declared foundations that this stage was measured on, with their signs."""
        return {f: sign for f, sign in self.persona.intent.items() if sign and f"mfv.{f}" in s.items}

    def precision(self, s: Stage) -> Precision | None:
        """The axis outside the intent that the target leads by least; None where nothing can be compared."""
        wanted = self.intended(s)
        others = [f for f in FOUNDATIONS if not self.persona.intent.get(f) and f"mfv.{f}" in s.items]
        if not wanted or not others:
            return None
        moved = {f: subtract(s.items[f"mfv.{f}"], self.stages[0].items[f"mfv.{f}"]) for f in FOUNDATIONS if f"mfv.{f}" in s.items}  # fmt: skip
        target = [
            sum(sign * v for sign, v in zip(wanted.values(), row, strict=True)) / len(wanted)
            for row in zip(*(moved[f] for f in wanted), strict=True)
        ]
        gaps = [
            Precision(f, bootstrap([t - sign * o for t, o in zip(target, moved[f], strict=True)], resamples=self.resamples))
            for f in others for sign in (1, -1)
        ]  # fmt: skip
        return min(gaps, key=lambda p: p.gap.lo)


def rows_of(e: Evidence, read: Callable[[dict[str, Any]], float]) -> dict[int, float]:
    """A number of every round's record that has it, by round."""
    found = {r["round"]: read(r) for r in e.rounds}
    return {round: v for round, v in found.items() if math.isfinite(v)}
