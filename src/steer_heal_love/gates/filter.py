"""Gate 2. Broken text is told from the rest, and enough of what is left enacts the trait.

Reads the rounds' records: coherent share by dose, counts, and what the kept text is like against the base's own.
"""

from __future__ import annotations

import math

from steer_heal_love.gates import Evidence, Found, Row, evidence_text, gate, show
from steer_heal_love.gates.evidence import rows_of
from steer_heal_love.nouns import WalkRecord

SOUP = 0.1
"""share of the training text that may read as soup beyond what the base's own text does"""
FALL = 0.1
"""fall of the coherent share over the doses under which the dose made no difference"""
MOST = 0.5

ROWS = {
    "works": Row(
        "pass",
        "the coherent share falls with the dose, enough text is kept, and what is kept leans to the pos pole",
        "The filter drops more at higher doses, and it keeps enough on-trait text.",
    ),
    "inert": Row(
        "undecided",
        f"the coherent share falls by at most {FALL:g} from the lowest dose to the highest, and most passes",
        "The filter is inert: most passes at every dose, and about as much at the highest as at the lowest.",
        "Read the borderline samples. If they read well, the doses are too low to break anything: raise walk.start. If they "
        "don't, the filter sees nothing.",
    ),
    "blind": Row(
        "undecided",
        f"the coherent share falls by at most {FALL:g} from the lowest dose to the highest, and most is dropped",
        "The filter is blind to the dose: it drops as much of mildly steered text as of strongly steered text.",
        "Read why texts fell: a bound may be too tight for this persona's prompts. Raise filter.quantile or "
        "filter.calibration.",
    ),
    "one_dose": Row(
        "undecided",
        "every round sampled at one dose (walk.kind raw or iso_kl)",
        "Whether the filter drops more at higher doses can't be seen: all text was sampled at one dose.",
        "To see it, walk the dose: walk.kind survival.",
    ),
    "starved": Row(
        "fail",
        "fewer survivors than filter.least at every dose",
        "The filter starves the heal: too few completions survived at any dose.",
        "The vector breaks this model before it moves it: try other layers, other poles, or a larger model. If most fell "
        "near a bound, raise filter.quantile.",
    ),
    "base_like": Row(
        "undecided",
        "what is kept leans no further to the pos pole than the base's own samples that pass the same filter",
        "The filter keeps base-like text: the model would learn to speak as it does already.",
        "Lower walk.survival, so that the dose may be higher, or raise generate.prompts and lower filter.keep, so that only the most on-trait text is used.",
    ),
    "soup": Row(
        "fail",
        f"the training text has more soup than the base's own samples, with 95% confidence and by more than {SOUP:.0%}; soup is "
        "text that goes in circles, is in foreign characters, or has a stretch odder than anything the base wrote",
        "The filter keeps soup that the base doesn't write, and the heal would copy it.",
        "Apply every check (filter.checks), lower filter.quantile, or raise walk.survival.",
    ),
}


@gate(
    "filter",
    step=2,
    claim="The filter drops more at higher doses, and enough on-trait text survives.",
    rows=ROWS,
)
def sieve(e: Evidence) -> Found | None:
    if not e.rounds:
        return None
    beyond = rows_of(e, lambda r: soupier(r.walk))
    parts = {r.number: f"round {r.number}: {told_of(r.walk)}" for r in e.rounds}
    reasons = {
        "starved": [r.number for r in e.rounds if r.walk.starved],
        "soup": [n for n, gap in beyond.items() if gap > SOUP],
        "base_like": [r.number for r in e.rounds if r.walk.trait_gain.lo <= 0],
    }
    for outcome, guilty in reasons.items():
        if guilty:
            return outcome, evidence_text(parts, guilty[0])
    if all(len(r.walk.survival) == 1 for r in e.rounds):
        return "one_dose", evidence_text(parts, 0)
    low, high = (sum(side) / len(e.rounds) for side in zip(*(ends(r.walk) for r in e.rounds), strict=True))
    if low - high <= FALL:
        return "inert" if high > MOST else "blind", evidence_text(parts, 0)
    return "works", evidence_text(parts, 0)


def ends(w: WalkRecord) -> tuple[float, float]:
    """The coherent share at the lowest dose, and at the highest."""
    return w.survival[min(w.survival)], w.survival[max(w.survival)]


def told_of(w: WalkRecord) -> str:
    """A round's walk in one line."""
    low, high = ends(w)
    line = (
        f"{w.used} of {w.made} used; coherent {low:.0%} at dose {min(w.survival):g}, {high:.0%} at "
        f"{max(w.survival):g}; kept beyond base on the trait {show(w.trait_gain, 'nats/token')}"
    )
    if not math.isfinite(w.soup_share):
        return line
    return f"{line}; soup {w.soup_share:.0%}, {show(w.soup_gap)} beyond the base's own"


def soupier(w: WalkRecord) -> float:
    """By how much more of the training text is soup than of the base's own, 0 where the two can't be told apart. Where
    the base's share is undefined, it is read as none."""
    if not math.isfinite(w.soup_gap.mean):
        return w.soup_share
    return w.soup_gap.mean if w.soup_gap.lo > 0 else 0.0
