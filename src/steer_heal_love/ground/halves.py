"""Does one model beat another on the trait, and on both halves of it?

In: the items of two models over the same probes. The trait's lead of a over b is the sum of two: how much likelier a
finds the pos answers, and how much less likely the neg answers, both in nats per token. A lead that comes from one half
while the other is behind compares two different things, and this says which half is missing.
"""

from __future__ import annotations

from dataclasses import dataclass

from steer_heal_love.ground.stats import paired
from steer_heal_love.nouns import Items, Score

NAMES = ("nll_pos", "nll_neg")
"""the items that the halves are read from"""


@dataclass(frozen=True)
class Halves:
    """The lead of one model over another, paired by probe: in all, and by half. The halves' intervals hold together."""

    trait: Score
    pos: Score
    neg: Score

    @property
    def missing(self) -> tuple[str, ...]:
        """The halves on which the lead is surely below zero."""
        return tuple(name for name in ("pos", "neg") if getattr(self, name).hi < 0)

    @property
    def beats(self) -> bool:
        """Whether the trait is ahead and neither half is behind."""
        return self.trait.lo > 0 and not self.missing

    @property
    def says(self) -> str:
        """The outcome in words."""
        if self.beats:
            return "ahead, and behind on neither half"
        ahead = "ahead" if self.trait.lo > 0 else "behind" if self.trait.hi < 0 else "not told apart"
        behind = {"pos": "finds the pos answers less likely", "neg": "finds the neg answers likelier"}
        return f"{ahead}, but {' and '.join(behind[m] for m in self.missing)}" if self.missing else ahead


def measured(*models: Items) -> bool:
    """Whether all of them have both halves."""
    return all(name in items for items in models for name in NAMES)


def halves(a: Items, b: Items, *, resamples: int, seed: int = 0) -> Halves:
    """The lead of `a` over `b`. Raises `KeyError` where the halves were not measured."""
    lead = lambda x, y, comparisons: paired(x, y, resamples=resamples, seed=seed, comparisons=comparisons)
    return Halves(
        trait=lead(a["trait"], b["trait"], 1),
        pos=lead(b["nll_pos"], a["nll_pos"], 2),
        neg=lead(a["nll_neg"], b["nll_neg"], 2),
    )
