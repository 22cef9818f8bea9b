"""Gate 3. The trait is in the weights, and the coherence that steering cost is given back.

Reads the last healed stage against the steered one of its round. Ratios are read as paired contrasts: the share
of the trait retained as mean(healed − RETAINED·steered), drift as mean(kl_healed − HALF·kl_steered).
"""

from __future__ import annotations

import math
from typing import Any

from steer_heal_love.gates import Evidence, Found, Row, gate, show, told

RETAINED = 0.25
"""share of the steered trait below which a heal has undone rather than healed"""
HALF = 0.5
"""share of the steered drift under which coherence has returned"""
RISE = 0.05
"""nats/token that the held-out curve may end above its lowest point"""
LEARNED = 0.02
"""nats/token by which the training loss falls when anything is learned"""

ROWS = {
    "healed": Row(
        "pass",
        "trait_shift above zero and a fair share of the steered; neutral_kl under half of the steered",
        "The trait is kept, and drift on neutral prompts is well under steering's.",
    ),
    "undid": Row(
        "fail",
        f"under {RETAINED:.0%} of the steered trait is left, while the training loss fell and neutral_kl is back",
        "The heal undid the steering: coherence is back because the trait is gone.",
        "Lower heal.lam or heal.anchor, raise heal.budget or heal.soft, or train longer.",
    ),
    "nothing": Row(
        "undecided",
        "the trait is not in the model, and the training loss did not fall or the update was scaled to nothing",
        "The heal learned nothing.",
        "More epochs, a higher heal.lr, or more kept text; if heal.budget scaled the update away, raise it.",
    ),
    "spoiled": Row(
        "fail",
        f"under {RETAINED:.0%} of the steered trait is left, and neutral_kl is not under half of the steered",
        "The worst of both: the trait is gone and the drift stayed.",
        "Read what was kept, raise heal.anchor, lower heal.lr.",
    ),
    "reversed": Row(
        "fail",
        "trait_shift of the healed model below zero",
        "The healed model moved away from the pos pole.",
        "Read what was kept.",
    ),
    "overfitted": Row(
        "undecided",
        f"NLL of kept text on held-out prompts ends more than {RISE:g} nats/token above its lowest epoch",
        "The heal overfitted: it learns these texts, no longer how they are written.",
        "Fewer heal.epochs, a lower heal.lr, some heal.weight_decay, or more kept text.",
    ),
    "drifted": Row(
        "undecided",
        "trait kept; neutral_kl not shown to be under half of the steered",
        "The trait is kept, but the model drifts on neutral prompts about as much as steering did.",
        "Raise heal.anchor, or lower heal.budget.",
    ),
    "imprecise": Row(
        "undecided",
        "trait kept and coherent, but a foundation outside the intent moved as much as the declared ones",
        "The healed model is imprecise: something else moved as far as the trait.",
        "See the steer gate. If steering was surgical, read what was kept.",
    ),
    "broken": Row(
        "fail",
        "own_excess past the coherence floor, or the model's own text in circles",
        "The healed model's own text is incoherent: the training set holds soup, or nothing anchors it.",
        "Read what was kept, raise heal.anchor, lower heal.epochs.",
    ),
}  # fmt: skip

DECIDES = {
    "nothing": "loss",
    "overfitted": "curve",
    "drifted": "drift",
    "spoiled": "drift",
    "imprecise": "aim",
    "broken": "odd",
}
"""the evidence that a row rests on; the trait for the others"""


@gate(
    "heal",
    step=3,
    claim="The healed model keeps the trait and gives back the coherence that steering cost.",
    needs=("trait_shift", "neutral_kl", "own_excess"),
    rows=ROWS,
)
def heal(e: Evidence) -> Found | None:
    h = e.last("healed")
    s = e.get("steered", h.round) if h else None
    if h is None or s is None:
        return None
    trait, steered = h.scores["trait_shift"], s.scores["trait_shift"]
    record, aim = e.healings.get(h.round, {}), e.precision(h)
    rise, fell = risen(record), fallen(record)
    drift = e.beyond(h, s, "neutral_kl", HALF)
    back = drift.hi < 0
    share = trait.mean / steered.mean if steered.lo > 0 else math.nan
    lost = not trait.lo > 0 or (steered.lo > 0 and e.beyond(h, s, "trait", RETAINED).hi < 0)
    parts = {
        "trait": f"trait_shift {show(trait, 'nats/token')} after round {h.round}, "
        + (f"{share:.0%} of the steered" if math.isfinite(share) else "steering itself moved none"),
        "drift": f"neutral_kl {h.scores['neutral_kl'].mean:.4f} against {s.scores['neutral_kl'].mean:.4f} steered",
        "odd": f"own_excess {show(h.scores['own_excess'])} against {show(s.scores['own_excess'])}",
        "loss": f"training loss fell by {fell:.3f}" if math.isfinite(fell) else "",
        "curve": f"held-out NLL ends {rise:.3f} above its lowest" if math.isfinite(rise) else "",
        "aim": f"{' and '.join(e.intended(h))} moved further than {aim.axis} by {show(aim.gap)}"
        if aim
        else "",
    }

    if e.incoherent(h):
        outcome = "broken"
    elif trait.hi < 0:
        outcome = "reversed"
    elif rise > RISE:
        outcome = "overfitted"
    elif lost and (not fell > LEARNED or record.get("scale") == 0):
        outcome = "nothing"
    elif lost:
        outcome = "undid" if back else "spoiled"
    elif not back:
        outcome = "drifted"
    else:
        outcome = "healed" if aim is None or aim.surgical else "imprecise"
    return outcome, told(parts, DECIDES.get(outcome, "trait"))


def risen(record: dict[str, Any]) -> float:
    """How far the held-out curve ends above its lowest epoch; NaN without one."""
    curve = [v["nll"] for v in record.get("validation", []) if v["nll"] is not None]
    return curve[-1] - min(curve) if curve else math.nan


def fallen(record: dict[str, Any]) -> float:
    """Training NLL of the first quarter of the steps less that of the last; NaN without any."""
    curve = [s["nll"] for s in record.get("steps", []) if s["nll"] is not None]
    quarter = max(1, len(curve) // 4)
    return (sum(curve[:quarter]) - sum(curve[-quarter:])) / quarter if curve else math.nan
