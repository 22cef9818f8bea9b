"""Gate 1. The vector moves the trait: enough, the right way, in both halves, and short of soup.

Reads the first round's steered stage. Its own text first, then the trait on the probes, which alone can pass it. The
vignettes of moral foundations are a second opinion: they can cast doubt on what the probes say, and prove nothing.
"""

from __future__ import annotations

import math

from steer_heal_love.gates import Evidence, Found, Row, coherence, evidence_text, gate, show
from steer_heal_love.nouns import Score

SOUP = 2.0
"""a steered model may be this many times as odd as a healed one"""
NOISE = 0.5
"""split-half cosine of the vector under which it is mostly noise"""

ROWS = {
    "moves": Row(
        "pass",
        "trait_shift above zero, in both halves where they were measured; no foundation contradicts it",
        "The vector carries the trait, so healing has something to distil. The foundations are a second opinion and prove nothing.",
    ),
    "half": Row(
        "undecided",
        "trait_shift above zero, but pos answers no likelier with 95% confidence, or neg answers no less likely",
        "It is not shown that both halves of the trait move under steering. The evidence says which half does not.",
        "Write poles that differ in what is said, not only in what is left out; or try other vector.layers, or a lower dose.",
    ),
    "weak": Row(
        "undecided",
        "trait_shift's interval holds zero, and the text reads well",
        "The vector is too weak at this dose: the shift on the probes can't be told from zero.",
        "Raise walk.start, lower walk.survival, or move vector.layers.",
    ),
    "noisy": Row(
        "undecided",
        f"trait_shift's interval holds zero, and the two halves of the contexts agree with a cosine under {NOISE}",
        "The vector is mostly noise: half of the contexts give another direction than the other half.",
        "Raise vector.contexts, or write poles that differ in one thing.",
    ),
    "imprecise": Row(
        "undecided",
        "trait_shift above zero, but a foundation outside the intent moves further than the declared ones, with 95% confidence",
        "The vector is imprecise: it moves the trait, but on the moral scenes it moves something else further.",
        "Rewrite the poles so that they differ in the trait alone.",
    ),
    "wrong_way": Row(
        "undecided",
        "trait_shift above zero, but a declared foundation moves against its intent",
        "On this model the persona may not mean what it says: a declared foundation moves against its intent.",
        "Rewrite the poles, or use a larger model.",
    ),
    "reversed": Row(
        "fail",
        "trait_shift below zero",
        "The probes move away from the pos pole: this model may not take the poles as opposites.",
        "Read the poles again, and the probes' answers.",
    ),
    "unseen": Row(
        "undecided",
        "trait_shift above zero, own_excess not measured",
        "The probes move, but the model's text was not measured, and babble moves them too.",
        "Add `samples` to eval.instruments.",
    ),
    **coherence.rows("The steered model", "Lower walk.start or raise walk.survival."),
}

DECIDES = {
    **dict.fromkeys(("broken", "collapsed", "cooled", "unseen"), "odd"),
    "half": "half",
    "wrong_way": "intent",
    "noisy": "noise",
    "imprecise": "aim",
}
"""the evidence that a row rests on; the trait for the others"""


@gate(
    "steer",
    step=1,
    claim="Steering moves the trait, the way it should, while the text stays coherent.",
    needs=("trait_shift",),
    rows=ROWS,
)
def steer(e: Evidence) -> Found | None:
    s = e.get("steered", 0)
    if s is None:
        return None
    trait, odd = s.scores["trait_shift"], s.scores.get("own_excess", Score.undefined())
    intended, aim = e.intended(s), e.precision(s)
    moves = {f: e.shift(s, f"mfv.{f}", comparisons=len(intended)) for f in intended}
    against = any((m.hi < 0) if intended[f] > 0 else (m.lo > 0) for f, m in moves.items())
    reliability = next((r.vector.reliability for r in e.rounds if r.number == 0), math.nan)
    text, unmoved = coherence.condition(e, s, SOUP), e.unmoved(s)
    parts = {
        "trait": f"trait_shift {show(trait, 'nats/token')} at dose {s.dose:g}",
        "half": unmoved,
        "aim": f"{' and '.join(intended)} moved further than {aim.axis} by {show(aim.gap)}" if aim else "",
        "intent": "; ".join(
            f"{f} {show(m)}, meant to {'rise' if intended[f] > 0 else 'fall'}" for f, m in moves.items()
        ),
        "odd": text.shown,
        "noise": f"the vector's halves agree with a cosine of {reliability:.2f}",
    }

    if text.row:
        outcome = text.row
    elif trait.hi < 0:
        outcome = "reversed"
    elif not trait.lo > 0:
        outcome = "noisy" if reliability < NOISE else "weak"
    elif not math.isfinite(odd.mean):
        outcome = "unseen"
    elif unmoved:
        outcome = "half"
    elif against:
        outcome = "wrong_way"
    else:
        outcome = "imprecise" if aim and aim.overtaken else "moves"
    return outcome, evidence_text(parts, DECIDES.get(outcome, "trait"))
