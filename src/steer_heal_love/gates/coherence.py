"""Is the model's own text still the base's kind of text? Read against the base's own on the same prompts, never absolutely.

    broken      own_excess past the coherence floor: the base finds the text odd
    collapsed   repeated word trigrams rise by more than CIRCLES with 95% confidence; or the entropy of the next-token
                distributions falls by more than FLAT of the base's own with 95% confidence, while own_excess doesn't rise
    cooled      that entropy falls by more than SURER of the base's own with 95% confidence, pos answers became less likely
                with 95% confidence, and neg answers too: the model is surer of everything, and learned no trait

own_excess alone is one-sided: it falls when a model repeats itself or plays safe. own_kl and text_auc are shown beside
it. A base that repeats itself condemns nobody, for what counts is the rise. What was not measured decides nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from steer_heal_love.gates import Row, show
from steer_heal_love.gates.evidence import Evidence
from steer_heal_love.ground.stats import bootstrap, subtract
from steer_heal_love.nouns import Score, Stage

CIRCLES = 0.05
"""rise of the share of repeated word trigrams past which a model goes in circles more than its base"""
FLAT = 0.3
"""share of the base's own entropy whose loss is a collapse, where the text is no odder"""
SURER = 0.1
"""share of the base's own entropy whose loss makes a model that learned no trait merely cooler"""
BESIDE = {
    "own_kl": "own_kl",
    "own_entropy_shift": "own entropy from base",
    "repetition_shift": "repetition from base",
    "text_auc": "text_auc",
}


@dataclass(frozen=True)
class Condition:
    """Of a model's own text: the row that condemns it, empty where none does; and the evidence in one line."""

    row: str
    shown: str


def condition(e: Evidence, s: Stage, slack: float = 1.0) -> Condition:
    """How `s` writes; `slack` multiplies the coherence floor."""
    odd = s.scores.get("own_excess", Score.undefined())
    shown = [f"own_excess {show(odd)}"] + [
        f"{words} {show(s.scores[name])}" for name, words in BESIDE.items() if defined(s, name)
    ]
    row = ""
    if odd.mean > slack * e.floor:
        row = "broken"
    if circles(e, s) or (flat(e, s, FLAT) and not odd.lo > 0):
        row = "collapsed"
    elif not row and flat(e, s, SURER) and surer_alone(e, s):
        row = "cooled"
    return Condition(row, ", ".join(shown))


def surer_alone(e: Evidence, s: Stage) -> bool:
    """Whether both poles' answers became less likely, the neg ones more."""
    h = e.halves(s, e.stages[0])
    return h is not None and h.pos.hi < 0 < h.neg.lo and h.trait.lo > 0


def worst(e: Evidence, stages: list[Stage]) -> Condition:
    """The first of these that is condemned, else the last."""
    conditions = [condition(e, s) for s in stages]
    return next((c for c in conditions if c.row), conditions[-1])


def defined(s: Stage, name: str) -> bool:
    return name in s.scores and math.isfinite(s.scores[name].mean)


def circles(e: Evidence, s: Stage) -> bool:
    """Whether the model repeats itself more than the base does, with 95% confidence and by more than CIRCLES."""
    both = "repetition" in s.items and "repetition" in e.stages[0].items
    return both and e.shift(s, "repetition").lo > CIRCLES


def flat(e: Evidence, s: Stage, share: float) -> bool:
    """Whether the next-token distributions lost more than this share of the base's entropy, with 95% confidence."""
    if "own_entropy" not in s.items or "own_entropy" not in e.stages[0].items:
        return False
    ours, base = s.items["own_entropy"], e.stages[0].items["own_entropy"]
    left = subtract(ours, [(1 - share) * v for v in base])
    return bootstrap(left, resamples=e.resamples).hi < 0


def rows(model: str, tries: str) -> dict[str, Row]:
    """The rows that every gate reads first, about this model, with what to try where it breaks or collapses."""
    return {
        "broken": Row(
            "fail",
            "own_excess above coherence_floor (of a steered model, above twice that), whatever the trait",
            f"{model} writes text that the base finds incoherent, so no trait is claimed for it.",
            tries,
        ),
        "collapsed": Row(
            "fail",
            f"the share of repeated three-word phrases is more than {CIRCLES:g} above the base's with 95% confidence; or the "
            f"entropy of its own next words is more than {FLAT:.0%} below the base's, and own_excess doesn't rise",
            f"{model} collapses: it goes in circles, or says the same safe things, more than the base does.",
            tries,
        ),
        "cooled": Row(
            "fail",
            f"the entropy of its own next words is more than {SURER:.0%} below the base's with 95% confidence, trait_pos is "
            "below zero and trait_neg above it: pos and neg answers both became less likely, the neg answers more",
            f"{model} learned no trait: it is only surer of everything than the base, as at a lower temperature.",
            "Set heal.soft to 1 where it is lower, set heal.anchor_temperature to 1, or sample the training text at temperature 1.",
        ),
    }
