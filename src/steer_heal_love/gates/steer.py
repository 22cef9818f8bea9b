"""Gate 1. The vector moves the trait: enough, the right way, only it, and short of soup.

Reads the first round's steered stage. Soup first (own_excess past SOUP floors), then signs, then size, then aim.
"""

from __future__ import annotations

import math

from steer_heal_love.gates import Evidence, Found, Row, gate, show, told
from steer_heal_love.nouns import Score

SOUP = 2.0
"""a steered model may be this many times as odd as a healed one"""
NOISE = 0.5
"""split-half cosine of the vector under which it is mostly noise"""

ROWS = {
    "surgical": Row(
        "pass",
        "trait_shift above zero; the declared foundations move further than each of the others",
        "The vector carries the trait, and moves what is declared furthest; how far the others go is in the foundations table. Healing has something to distil.",
    ),
    "moves": Row(
        "pass",
        "trait_shift above zero; the persona declares no foundation, or none was measured",
        "The vector carries the trait. Healing has something to distil.",
        "Whether it moves only the trait is open: declare foundations under [intent] and run the vignettes.",
    ),
    "weak": Row(
        "undecided",
        "trait_shift's interval holds zero, and the text reads well",
        "The vector is too weak at this dose: the probes' shift is not distinguishable from zero.",
        "Raise walk.start, lower walk.survival, or move vector.layers.",
    ),
    "noisy": Row(
        "undecided",
        f"trait_shift's interval holds zero, and the two halves of the contexts agree with a cosine under {NOISE}",
        "The vector is mostly noise: half of the contexts give another direction than the other half.",
        "Raise vector.contexts, or write poles that differ in one thing.",
    ),
    "strong": Row(
        "fail",
        f"own_excess of the steered text past {SOUP:g} times the coherence floor, or text in circles",
        "The vector is too strong at this dose: the text is soup, so the shift says nothing.",
        "Lower walk.start or raise walk.survival.",
    ),
    "imprecise": Row(
        "undecided",
        "trait_shift above zero, but a foundation outside the intent moves as much as the declared ones",
        "The vector is imprecise: it moves the trait, and something else as far.",
        "Rewrite the poles so that they differ in the trait alone; if the interval only just holds zero, raise "
        "eval.vignettes.",
    ),
    "wrong_way": Row(
        "fail",
        "a declared foundation moves against its intent, though the probes may move the right way",
        "On this model the persona does not mean what it says: a declared foundation moves against its intent.",
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
        "The probes move, but nobody looked at the text: soup moves them too.",
        "Add `samples` to eval.instruments.",
    ),
}  # fmt: skip

DECIDES = {
    "strong": "odd",
    "unseen": "odd",
    "wrong_way": "intent",
    "noisy": "noise",
    "surgical": "aim",
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
    moves = {f: e.shift(s, f"mfv.{f}", looks=len(intended)) for f in intended}
    against = any((m.hi < 0) if intended[f] > 0 else (m.lo > 0) for f, m in moves.items())
    reliability = next((r.get("reliability", math.nan) for r in e.rounds if r["round"] == 0), math.nan)
    parts = {
        "trait": f"trait_shift {show(trait, 'nats/token')} at dose {s.dose:g}",
        "aim": f"{' and '.join(intended)} moved further than {aim.axis} by {show(aim.gap)}" if aim else "",
        "intent": "; ".join(
            f"{f} {show(m)}, meant to {'rise' if intended[f] > 0 else 'fall'}" for f, m in moves.items()
        ),
        "odd": f"own_excess {show(odd)}",
        "noise": f"the vector's halves agree with a cosine of {reliability:.2f}",
    }

    if e.incoherent(s, SOUP):
        outcome = "strong"
    elif trait.hi < 0:
        outcome = "reversed"
    elif against:
        outcome = "wrong_way"
    elif not trait.lo > 0:
        outcome = "noisy" if reliability < NOISE else "weak"
    elif not math.isfinite(odd.mean):
        outcome = "unseen"
    elif aim is None:
        outcome = "moves"
    else:
        outcome = "surgical" if aim.surgical else "imprecise"
    return outcome, told(parts, DECIDES.get(outcome, "trait"))
