"""What the gates read: stages with their items, and what each round recorded.

Off target: with T_i the mean signed shift of vignette i along the foundations that the persona declares, and O_i
its shift along one that it doesn't, the axis overtakes the target when mean(T − O) or mean(T + O) is below 0 with 95% confidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from steer_heal_love.ground.halves import Halves, halves, measured
from steer_heal_love.ground.stats import bootstrap, paired, subtract, summed
from steer_heal_love.nouns import FOUNDATIONS, Healing, Persona, Round, Score, Stage


@dataclass(frozen=True)
class Precision:
    """How much further the target moved than the axis outside the intent that comes closest to it; `overtaken` where
    some axis moved further than the target with 95% confidence, at an error that all axes share."""

    axis: str
    gap: Score
    overtaken: bool


@dataclass(frozen=True)
class Evidence:
    """A run so far. `floor`: own_excess in nats/token past which a healed model's text is incoherent."""

    persona: Persona
    stages: list[Stage]
    rounds: list[Round] = field(default_factory=list)
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
    def healings(self) -> dict[int, Healing]:
        """The heals' records by round."""
        return {r.number: r.healing for r in self.rounds if r.healing}

    def shift(self, s: Stage, item: str, comparisons: int = 1) -> Score:
        """Shift of a stage from base, its interval one of `comparisons` that are read at once."""
        base = self.stages[0].items[item]
        return paired(s.items[item], base, resamples=self.resamples, comparisons=comparisons)

    def versus(self, a: Stage, b: Stage, item: str = "trait", comparisons: int = 1) -> Score:
        """a − b, paired by item."""
        return paired(a.items[item], b.items[item], resamples=self.resamples, comparisons=comparisons)

    def halves(self, a: Stage, b: Stage) -> Halves | None:
        """a's lead over b on the trait and on both halves of it; None where the halves were not measured."""
        if not measured(a.items, b.items):
            return None
        return halves(a.items, b.items, resamples=self.resamples)

    def unmoved(self, s: Stage) -> str:
        """Which half of the trait is not above zero with 95% confidence, or surely below it, in words; empty where both are
        above, or were not measured."""
        h = self.halves(s, self.stages[0])
        if h is None:
            return ""
        halves = (
            (h.pos, "pos answers are no likelier", "pos answers are less likely"),
            (h.neg, "neg answers are no less likely", "neg answers are likelier"),
        )
        return " and ".join(
            below if half.hi < 0 else untold for half, untold, below in halves if not half.lo > 0
        )

    def beyond(self, a: Stage, b: Stage, item: str, share: float) -> Score:
        """How far a's shift from base lies above a share of b's: the honest reading of their ratio."""
        base = self.stages[0].items[item]
        ours, theirs = subtract(a.items[item], base), subtract(b.items[item], base)
        contrast = [x - share * y for x, y in zip(ours, theirs, strict=True)]
        return bootstrap(contrast, resamples=self.resamples)

    def above_scaled(self, a: Stage, b: Stage) -> Score:
        """How far a's trait lies above b's scaled to a's neutral_kl: mean(a − ρ·b) of shifts from base, ρ = √(K_a/K_b).

        Trait is taken as linear in the root of neutral_kl, as it is where an update is scaled. ρ's own error, to first
        order dρ = ρ/2·(k_a/K_a − k_b/K_b) by neutral prompt, is in the interval. Undefined where b drifts nowhere.
        """
        base = self.stages[0].items["trait"]
        ours, theirs = (np.array(subtract(s.items["trait"], base)) for s in (a, b))
        ka, kb = (np.array(s.items["neutral_kl"]) for s in (a, b))
        if not kb.mean() > 0:
            return Score.undefined()
        if not ka.mean() > 0:
            return bootstrap(ours.tolist(), resamples=self.resamples)
        ratio = math.sqrt(ka.mean() / kb.mean())
        moved = theirs.mean() * ratio / 2 * (ka / ka.mean() - kb / kb.mean())
        return summed([(ours - ratio * theirs)[None], -moved[None]], resamples=self.resamples)

    def intended(self, s: Stage) -> dict[str, int]:
        """The declared foundations that this stage was measured on, with their signs."""
        return {f: sign for f, sign in self.persona.intent.items() if sign and f"mfv.{f}" in s.items}

    def precision(self, s: Stage) -> Precision | None:
        """The axis outside the intent that the target leads by least; None where nothing can be compared."""
        wanted = self.intended(s)
        others = [f for f in FOUNDATIONS if not self.persona.intent.get(f) and f"mfv.{f}" in s.items]
        if not wanted or not others:
            return None
        moved = {
            f: subtract(s.items[f"mfv.{f}"], self.stages[0].items[f"mfv.{f}"])
            for f in FOUNDATIONS
            if f"mfv.{f}" in s.items
        }
        target = [
            sum(sign * v for sign, v in zip(wanted.values(), row, strict=True)) / len(wanted)
            for row in zip(*(moved[f] for f in wanted), strict=True)
        ]
        apart = {
            (f, sign): [t - sign * o for t, o in zip(target, moved[f], strict=True)]
            for f in others
            for sign in (1, -1)
        }
        gaps = {k: bootstrap(v, resamples=self.resamples) for k, v in apart.items()}
        overtaken = [
            bootstrap(v, resamples=self.resamples, comparisons=len(apart)).hi < 0 for v in apart.values()
        ]
        closest = min(gaps, key=lambda k: gaps[k].lo)
        return Precision(closest[0], gaps[closest], any(overtaken))


def rows_of(e: Evidence, value: Callable[[Round], float]) -> dict[int, float]:
    """A number of every round's record that has it, by round."""
    found = {r.number: value(r) for r in e.rounds}
    return {round: v for round, v in found.items() if math.isfinite(v)}
