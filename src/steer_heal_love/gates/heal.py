"""Gate 3. Is healing more than steering less?

Scaling a vector down gives drift back too. So the healed model's trait is set against that of the base merely steered
(round 0's), scaled to the healed model's neutral_kl: mean(healed − √(K_h/K_s)·steered) by probe, with the error of the
ratio in the interval (`Evidence.above_scaled`). Both halves of the trait must move.

Each round is read for what it added itself, beside the cumulative trait: with s_n the steered and h_n the healed trait
of round n, the share kept is mean(h_n − h_{n−1}) / mean(s_n − h_{n−1}), h_{−1} being the base; and a round fades where
mean((h_n − h_{n−1}) − RETAINED·(s_n − h_{n−1})) is below 0 with 95% confidence. Drift is read as mean(kl_healed − HALF·kl_steered).
"""

from __future__ import annotations

import math

from steer_heal_love.gates import Evidence, Found, Row, coherence, evidence_text, gate, show
from steer_heal_love.ground.stats import bootstrap, ratio, subtract
from steer_heal_love.nouns import Healing, Score, Stage

RETAINED = 0.25
"""share of the steered trait below which a heal has undone rather than healed"""
HALF = 0.5
"""share of the steered drift under which coherence has returned"""
RISE = 0.05
"""nats/token that the held-out curve may end above its lowest point"""
LEARNED = 0.02
"""nats/token by which a student comes nearer to what it imitates when anything is learned"""

ROWS = {
    "healed": Row(
        "pass",
        "trait_shift above zero in both halves, and above the steered base's scaled to the same neutral_kl; neutral_kl "
        "under half of the steered model's",
        "The healed model has more of the trait than steering turned down to its drift: healing is more than steering less.",
    ),
    "outdone": Row(
        "fail",
        "the steered base's trait, scaled to the healed model's neutral_kl, lies above the healed model's",
        "At the same drift, the steering vector alone moves more of the trait than the healed model does.",
        "Read what was kept; raise generate.prompts, or set heal.soft to 1 where it is lower. For now, steer at a lower dose instead.",
    ),
    "half": Row(
        "undecided",
        "trait_shift above zero, but pos answers no likelier with 95% confidence, or neg answers no less likely",
        "It is not shown that both halves of the trait are in the weights. The evidence says which half is not.",
        "With the default settings nothing is known to mend this; try other vector.layers. Where heal.soft is below 1, set it to 1.",
    ),
    "no_better": Row(
        "undecided",
        "the interval of healed minus steered, scaled to the same neutral_kl, holds zero",
        "Healing can't be told from steering less: at the same drift the difference in trait can't be told from zero.",
        "Raise eval.probes and eval.neutral_prompts, rounds, or filter.keep.",
    ),
    "fades": Row(
        "undecided",
        f"the last round kept under {RETAINED:.0%}, with 95% confidence, of the trait that steering added in it",
        "Healing kept under a quarter of what steering added in the last round: the trait comes from earlier rounds.",
        "Stop a round earlier, or raise heal.budget, so that a later round has more to spend.",
    ),
    "undid": Row(
        "fail",
        f"under {RETAINED:.0%} of the steered model's trait is left, training came nearer to what it imitates, and neutral_kl "
        "is under half of the steered model's",
        "The heal undid the steering: coherence is back because the trait is gone.",
        "Lower heal.lam or heal.anchor, raise heal.budget, or train longer.",
    ),
    "untold": Row(
        "undecided",
        f"trait_shift's interval holds zero, and it is not shown that under {RETAINED:.0%} of the steered model's trait is left",
        "Whether any of the trait is in the healed model can't be told: its shift can't be told from zero, nor from all that "
        "steering moved.",
        "Read the steer gate first: where steering moved nothing, there was nothing to keep. Else raise eval.probes.",
    ),
    "nothing": Row(
        "undecided",
        "the trait is not shown to be in the model, and training came no nearer to what it imitates (its teacher, or where "
        "heal.soft is 0 the kept text), or the update was scaled to nothing",
        "The heal learned nothing.",
        "More epochs, a higher heal.lr, or more kept text; if heal.budget scaled the update away, raise it.",
    ),
    "spoiled": Row(
        "fail",
        f"under {RETAINED:.0%} of the steered model's trait is left, and neutral_kl is not under half of the steered model's",
        "The worst of both: the trait is gone, and the drift is not shown to have halved.",
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
        f"on held-out prompts the distance from what training imitates (the divergence from its teacher, or where heal.soft is 0 "
        f"the NLL of the kept text) ends more than {RISE:g} nats/token above its lowest epoch",
        "The heal overfitted: it learns these texts by heart instead of how they are written.",
        "Lower heal.epochs or heal.lr, set some heal.weight_decay, or keep more text.",
    ),
    "drifted": Row(
        "undecided",
        "trait kept; neutral_kl not shown to be under half of the steered model's",
        "The trait is kept, but the model drifts on neutral prompts about as much as steering did.",
        "Raise heal.anchor, or lower heal.budget.",
    ),
    "imprecise": Row(
        "undecided",
        "trait kept and coherent, but a foundation outside the intent moved further than the declared ones, with 95% confidence",
        "The healed model is imprecise: on the moral scenes something else moved further than the trait.",
        "See the steer gate. If steering was precise, read what was kept.",
    ),
    **coherence.rows("The healed model", "Read what was kept, raise heal.anchor, lower heal.epochs."),
}

DECIDES = {
    **dict.fromkeys(("broken", "collapsed", "cooled"), "odd"),
    **dict.fromkeys(("healed", "outdone", "no_better"), "lead"),
    **dict.fromkeys(("drifted", "spoiled"), "drift"),
    "half": "half",
    "fades": "rounds",
    "nothing": "loss",
    "overfitted": "curve",
    "imprecise": "aim",
}
"""the evidence that a row rests on; the trait for the others"""


@gate(
    "heal",
    step=3,
    claim="Healing is more than steering less: at the same drift the healed model has more of the trait.",
    needs=("trait_shift", "neutral_kl", "own_excess"),
    rows=ROWS,
)
def heal(e: Evidence) -> Found | None:
    h = e.last("healed")
    s, first = (e.get("steered", n) if h else None for n in (h.round if h else 0, 0))
    if h is None or s is None or first is None:
        return None
    trait, steered = h.scores["trait_shift"], s.scores["trait_shift"]
    record, aim = e.healings.get(h.round, Healing()), e.precision(h)
    text, unmoved = coherence.condition(e, h), e.unmoved(h)
    learned = imitated(record)
    fell, rise = fallen(curve(record.steps, learned)), risen(curve(record.validation, learned))
    lead, back = e.above_scaled(h, first), e.beyond(h, s, "neutral_kl", HALF).hi < 0
    share = trait.mean / steered.mean if steered.lo > 0 else math.nan
    gone = steered.lo > 0 and e.beyond(h, s, "trait", RETAINED).hi < 0
    lost = gone or not trait.lo > 0
    parts = {
        "lead": f"above steering at the same drift {show(lead, 'nats/token')}",
        "half": unmoved,
        "trait": f"trait_shift {show(trait, 'nats/token')} after round {h.round}, "
        + (f"{share:.0%} of the steered" if math.isfinite(share) else "steering itself moved none"),
        "rounds": kept_by_round(e),
        "drift": f"neutral_kl {h.scores['neutral_kl'].mean:.4f} against {s.scores['neutral_kl'].mean:.4f} steered",
        "odd": text.shown,
        "loss": f"in training {IMITATED[learned]} {'fell' if fell >= 0 else 'rose'} by {abs(fell):.3f}"
        if math.isfinite(fell)
        else "",
        "curve": f"held out, {IMITATED[learned]} ends {rise:.3f} above its lowest"
        if math.isfinite(rise)
        else "",
        "aim": f"{' and '.join(e.intended(h))} moved further than {aim.axis} by {show(aim.gap)}"
        if aim
        else "",
    }

    if text.row:
        outcome = text.row
    elif trait.hi < 0:
        outcome = "reversed"
    elif rise > RISE:
        outcome = "overfitted"
    elif lost and (not fell > LEARNED or record.scale == 0):
        outcome = "nothing"
    elif gone:
        outcome = "undid" if back else "spoiled"
    elif lost:
        outcome = "untold"
    elif lead.hi < 0:
        outcome = "outdone"
    elif unmoved:
        outcome = "half"
    elif not back:
        outcome = "drifted"
    elif not lead.lo > 0:
        outcome = "no_better"
    elif fades(e, h):
        outcome = "fades"
    else:
        outcome = "imprecise" if aim and aim.overtaken else "healed"
    return outcome, evidence_text(parts, DECIDES.get(outcome, "trait"))


def added(e: Evidence, h: Stage) -> tuple[list[float], list[float]] | None:
    """By probe, what the round of `h` added to the trait: healed, and steered before its heal."""
    s, before = e.get("steered", h.round), e.get("healed", h.round - 1) if h.round else e.stages[0]
    if s is None or before is None:
        return None
    return tuple(subtract(x.items["trait"], before.items["trait"]) for x in (h, s))  # type: ignore[return-value]


def fades(e: Evidence, h: Stage) -> bool:
    """Whether the round surely kept less than RETAINED of what steering surely added in it."""
    found = added(e, h)
    if found is None or not bootstrap(found[1], resamples=e.resamples).lo > 0:
        return False
    contrast = [ours - RETAINED * theirs for ours, theirs in zip(*found, strict=True)]
    return bootstrap(contrast, resamples=e.resamples).hi < 0


def kept_by_round(e: Evidence) -> str:
    """The share of each round's added steered trait that its heal kept, in one line."""
    said = []
    for h in (s for s in e.stages if s.stage == "healed"):
        if found := added(e, h):
            said.append(f"round {h.round} {percent(ratio(*found, resamples=e.resamples))}")
    return f"kept of what steering added: {', '.join(said)}" if said else ""


def percent(s: Score) -> str:
    """A share with its interval; a word where the whole can't be told from zero."""
    return (
        f"{s.mean:.0%} [{s.lo:.0%}, {s.hi:.0%}]" if math.isfinite(s.lo) else "undefined, steering added none"
    )


IMITATED = {"soft": "the divergence from its teacher", "nll": "the NLL of the kept text"}
"""what a heal's steps and epochs record of how near it came to what it imitates; the first that was taken counts"""


def imitated(record: Healing) -> str:
    """Which of these the heal learned from."""
    return next((name for name in IMITATED if curve(record.steps, name)), "nll")


def curve(rows: list[dict[str, float]], name: str) -> list[float]:
    """A column of a heal's steps or epochs, where it was taken."""
    return [v for row in rows if math.isfinite(v := row.get(name, math.nan))]


def risen(curve: list[float]) -> float:
    """How far a curve ends above its lowest point; NaN without any."""
    return curve[-1] - min(curve) if curve else math.nan


def fallen(curve: list[float]) -> float:
    """The mean of the first quarter of a curve less that of its last; NaN without any."""
    quarter = max(1, len(curve) // 4)
    return (sum(curve[:quarter]) - sum(curve[-quarter:])) / quarter if curve else math.nan
