"""Gate 7. More than no idea of the trait: the healed model against the best null at its own drift.

Reads `above_null` of the last healed stage (`evals.nulls`): its trait shift less that of the better of one unconditional
bias of words and a temperature, at the same neutral_kl, paired by probe. Both halves of the trait stand beside it.
"""

from __future__ import annotations

import math

from steer_heal_love.gates import Evidence, Found, Row, evidence_text, gate, show
from steer_heal_love.nouns import Score, Stage

ROWS = {
    "above": Row(
        "pass",
        "above_null lies above zero, and both halves of the trait were measured",
        "The healed model has more of the trait than a bias of words or a lower temperature would give at the same drift.",
    ),
    "unmeasured_halves": Row(
        "undecided",
        "above_null lies above zero, and the NLL of pos and neg answers was not measured apart",
        "The trait lies above the nulls', but nobody can say whether the pos answers became likelier or only the neg ones "
        "less likely.",
        "Measure with a version whose probes give nll_pos and nll_neg: `shl eval` on the run's adapter.",
    ),
    "not_told_apart": Row(
        "undecided",
        "the interval of above_null holds zero",
        "The healed model's trait can't be told from what a bias of words or a temperature reaches at the same drift.",
        "More probes or rounds; compare with every null at equal drift (`shl compare`).",
    ),
    "below": Row(
        "fail",
        "above_null lies below zero",
        "At the same drift a bias of words, a temperature, or the base as it is has more of the trait, so healing is no use here.",
        "Read the steer and heal gates. Try a stronger vector, a higher dose, a larger heal.budget, or another persona.",
    ),
}


@gate(
    "null",
    step=7,
    claim="The healed model's trait lies above what a bag-of-words bias or a temperature reaches at the same drift.",
    rows=ROWS,
)
def null(e: Evidence) -> Found | None:
    h = e.last("healed")
    if h is None or not math.isfinite(h.scores.get("above_null", Score.undefined()).lo):
        return None
    above, halves = h.scores["above_null"], both(e, h)
    parts = {
        "above": f"above the best null {show(above, 'nats/token')}",
        "null": f"the null {show(h.scores['null_trait'])} at neutral_kl {h.scores['neutral_kl'].mean:.4f}",
        "halves": "; ".join(f"{name} {show(s)}" for name, s in halves.items()),
    }
    observed = evidence_text(parts, "above")
    if above.hi < 0:
        return "below", observed
    if not above.lo > 0:
        return "not_told_apart", observed
    return ("above" if halves else "unmeasured_halves"), observed


def both(e: Evidence, h: Stage) -> dict[str, Score]:
    """How much likelier the pos answers became, and how much less likely the neg ones; empty where not measured."""
    if not {"nll_pos", "nll_neg"} <= h.items.keys() & e.stages[0].items.keys():
        return {}
    fall, rise = (
        e.versus(e.stages[0], h, "nll_pos", comparisons=2),
        e.versus(h, e.stages[0], "nll_neg", comparisons=2),
    )
    return {"trait_pos": fall, "trait_neg": rise}
