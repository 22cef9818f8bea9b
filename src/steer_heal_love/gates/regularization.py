"""Gate 4. What holds the student to the base acts, and leaves the trait room: barrier, anchor, trust region.

Reads the heals' records. A term's gradient ratio is |∇ term| / |∇ imitation|; it is recorded for a term that is on. A barrier
fires in a step whose divergence exceeds heal.tau; the trust region's scale is what it left of the update.
"""

from __future__ import annotations

import math

from steer_heal_love.gates import Evidence, Found, Row, evidence_text, gate
from steer_heal_love.nouns import DOMINATES

SPENT = 0.1
"""share of an update under which the trust region has left nothing of it"""

ROWS = {
    "holds": Row(
        "pass",
        f"everything that is switched on has an effect, no term's gradient is more than {DOMINATES:g} times the imitation's, "
        f"and the trust region leaves at least {SPENT:g} of every update",
        "The student is held to the base, and the trait has room.",
    ),
    "idle": Row(
        "undecided",
        "the barrier is on, and its divergence stayed under heal.tau in every step",
        "The barrier never has an effect: it might as well be off.",
        "Lower heal.tau, or set heal.lam to 0 and save its forward pass.",
    ),
    "throttles": Row(
        "fail",
        f"the barrier's gradient is more than {DOMINATES:g} times the imitation's",
        "The barrier holds the trait down: on text that shows the trait, the divergence that it penalises is the trait itself.",
        "Lower heal.lam, raise heal.tau, or set heal.reference to previous.",
    ),
    "anchor": Row(
        "fail",
        f"the anchor's gradient is more than {DOMINATES:g} times the imitation's",
        "The anchor dominates: the student learns to be the base.",
        "Lower heal.anchor.",
    ),
    "spent": Row(
        "undecided",
        f"the trust region scaled an update to under {SPENT:g} of what was trained",
        "The trust region left next to nothing of a round's update: the budget was spent, or the update drifts far for its size.",
        "Raise heal.budget, or ask for fewer rounds, so that each has a larger part of it.",
    ),
    "none": Row(
        "undecided",
        "no barrier, no anchor, and no update was scaled",
        "Nothing holds the student to the base, so its coherence may fall as its trait rises.",
        "Set heal.anchor, or heal.budget.",
    ),
}


@gate(
    "regularization",
    step=4,
    claim="Barrier, anchor and trust region hold the student to the base, and leave room for the trait.",
    rows=ROWS,
)
def regularization(e: Evidence) -> Found | None:
    heals = e.healings
    if not heals:
        return None
    barrier = {n: p for n, h in heals.items() if math.isfinite(p := h.gradient_ratio("barrier"))}
    anchor = {n: p for n, h in heals.items() if math.isfinite(p := h.gradient_ratio("anchor"))}
    fired = {n: sum(s["barrier"] > 0 for s in heals[n].steps) / len(heals[n].steps) for n in barrier}
    parts = {
        n: f"round {n}: update scaled by {h.scale:.2f}"
        + (
            f", barrier's gradient {barrier[n]:.2f} times the imitation's, fires in {fired[n]:.0%} of steps"
            if n in barrier
            else ", no barrier"
        )
        + (f", anchor's gradient {anchor[n]:.2f} times the imitation's" if n in anchor else ", no anchor")
        for n, h in heals.items()
    }
    reasons = {
        "throttles": [n for n, p in barrier.items() if p > DOMINATES],
        "anchor": [n for n, p in anchor.items() if p > DOMINATES],
        "spent": [n for n, h in heals.items() if h.scale < SPENT],
        "idle": list(barrier) if not any(fired.values()) else [],
    }
    for outcome, guilty in reasons.items():
        if guilty:
            return outcome, evidence_text(parts, guilty[0])
    held = barrier or anchor or any(h.scale != 1 for h in heals.values())
    return "holds" if held else "none", evidence_text(parts, min(parts))
