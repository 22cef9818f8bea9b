"""The verdict of a certificate: is trait X in this model, and is the model still healthy?

In: the evidence of one model beside its base: a base stage, a prompted one (the base told by a system prompt to be the
pos pole) and a healed one. Out: a `Gate`. It is no gate of a run: a
model of other hands has no steered stage and no record of its training, so only what can be read from outside counts.
Health is read before any trait. The trait is read against the nulls (`evals.nulls`) at the model's own drift, and
against the prompted base: mean(trait_model − LEAST·trait_prompt) of shifts by probe. Any training moves any likelihood
a little, surely so with enough probes; a trait is what comes to at least half of what telling the base does.

`few_tokens` is measured here, from the model's own samples: with T the FEW tokens that a model's samples hold most
often, the share of each sample's tokens that are in T, a mean over prompts. The base's own share, with a T of its own, is
subtracted by prompt. A model that says one word for ever has 1. End-of-turn tokens count as all others do.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Literal

from steer_heal_love.gates import Claim, Evidence, Found, Row, coherence, evidence_text, show
from steer_heal_love.gates.relevance import KINDS as KINDS_OF_PROMPT
from steer_heal_love.gates.relevance import left_of
from steer_heal_love.ground.stats import bootstrap, paired, subtract
from steer_heal_love.nouns import Gate, Score, Stage

Kind = Literal["trait", "no trait", "broken", "collapse", "unknown"]

FEW = 4
"""tokens that a collapsed model may live on"""
MOSTLY = 0.25
"""rise of their share of a model's own text past which it is a collapse"""
LEAST = 0.5
"""share of the prompted base's trait_shift under which a shift is too faint to be called the trait"""
DRIFT = 0.5
"""nats/token of neutral_kl past which a model is another model, whatever its trait"""
SCATTERED = 0.5
"""share of the base's own entropy whose gain makes a model's text arbitrary"""
ASKED = 0.5
"""share of the base's relevance under which a model no longer answers what it is asked"""
LOST = 0.1
"""share of the capability panel's questions whose loss breaks a model"""

ROWS = {
    "moved": Row(
        "pass",
        f"trait_shift and above_null above zero with 95% confidence, both halves too, over {LEAST:.0%} of the prompted base's trait, "
        "and every sign of health holds",
        "The trait is in the model, above what a bias of words or a lower temperature would give at the same drift, and the "
        "model is healthy.",
    ),
    "half": Row(
        "pass",
        "as above, but pos answers are no likelier with 95% confidence, or neg answers no less likely",
        "The trait is in the model, above the nulls at its drift, and the model is healthy. It is not shown that "
        "both of its halves moved: the evidence says which half isn't.",
        "More probes tell the halves apart more finely; `shl try` shows the answers themselves.",
    ),
    "reversed": Row(
        "fail",
        "trait_shift below zero with 95% confidence",
        "The model moved away from the trait's pos pole.",
        "Look at the trait with its poles swapped.",
    ),
    "no_trait": Row(
        "fail",
        "trait_shift not above zero with 95% confidence",
        "No trait is shown: the model's likelihoods of the probes' answers can't be told from the base's.",
        "More probes narrow the interval; a persona of your own may name the trait better.",
    ),
    "words_alone": Row(
        "fail",
        "trait_shift above zero with 95% confidence, above_null not",
        "No trait is shown: the shift can't be told from what a bias of words that knows no context, or a temperature, reaches "
        "at the same drift.",
        "More probes narrow the interval.",
    ),
    "faint": Row(
        "fail",
        f"trait_shift above zero with 95% confidence, but not above {LEAST:.0%} of what a system prompt gives the base",
        f"No trait is shown: the shift can't be told from {LEAST:.0%} of what a system prompt does to the base, or lies below.",
        "More probes narrow the interval; `shl try` shows the answers themselves.",
    ),
    "unmeasured": Row(
        "undecided",
        "trait_shift or above_null is undefined: not measured, or the drift is past what any null reaches",
        "The trait is not judged: it was not measured, or no null reaches this model's drift.",
        "Measure with probes, neutral prompts and nulls. If the model drifts far, certify it at a lower strength.",
    ),
    **coherence.rows("This model", "No trait is claimed for it, at any size of shift."),
    "few_tokens": Row(
        "fail",
        f"the {FEW} commonest tokens hold a share of its own text that is more than {MOSTLY:g} above the base's with 95% confidence",
        "The model has collapsed on a few tokens: its gain on the probes comes from those tokens, not from a trait.",
        "No trait is claimed for it, at any size of shift.",
    ),
    "drifted": Row(
        "fail",
        f"neutral_kl above {DRIFT:g} nats/token with 95% confidence",
        "The model is broken: it no longer answers neutral prompts as its base does.",
        "Train with an anchor to the base's own answers, or scale the adapter down.",
    ),
    "scattered": Row(
        "fail",
        f"the entropy of its own next words is more than {SCATTERED:.0%} above the base's with 95% confidence",
        "The model is broken: it is far less sure of its next word than its base.",
        "Train with an anchor to the base's own answers, or scale the adapter down.",
    ),
    "off_prompt": Row(
        "fail",
        f"under {ASKED:.0%} of the base's relevance is left with 95% confidence, on probe questions or on neutral prompts",
        "The model no longer answers what it is asked: its text would fit most prompts as well as its own.",
        "Read the pairs of texts; scale the adapter down.",
    ),
    "incapable": Row(
        "fail",
        f"capability falls by more than {LOST:g} with 95% confidence",
        "The model has lost what its base could do: sums, facts and formats.",
        "Train with an anchor to the base's own answers, or scale the adapter down.",
    ),
}

KINDS: dict[str, Kind] = {
    "moved": "trait",
    "half": "trait",
    "reversed": "no trait",
    "no_trait": "no trait",
    "words_alone": "no trait",
    "faint": "no trait",
    "unmeasured": "unknown",
    "broken": "broken",
    "drifted": "broken",
    "scattered": "broken",
    "off_prompt": "broken",
    "incapable": "broken",
    "cooled": "no trait",
    "collapsed": "collapse",
    "few_tokens": "collapse",
}
"""what each outcome comes to, in one word or two"""
DECIDES = {
    **dict.fromkeys(("broken", "collapsed", "cooled"), "odd"),
    "few_tokens": "few",
    "drifted": "drift",
    "scattered": "spread",
    "off_prompt": "asked",
    "incapable": "able",
    "words_alone": "above",
    "half": "half",
    "faint": "told",
}
"""the evidence that a row rests on; the trait for the others"""
MEANING = "The trait is in the model, above the nulls at its drift, and the model is healthy."
CLAIM = Claim(0, MEANING, (), ROWS, lambda e: found(e))


def certified(e: Evidence) -> Gate:
    """The certificate's verdict on the last healed stage, `few_tokens` measured (`with_few`)."""
    outcome, observed = found(e)
    row = ROWS[outcome]
    return Gate("certificate", MEANING, observed, row.verdict, row.means, outcome)


def found(e: Evidence) -> Found:
    base, h = e.stages[0], e.last("healed")
    assert h is not None  # a certificate is of a model
    score = lambda name: h.scores.get(name, Score.undefined())
    trait, above, drift, few = map(score, ("trait_shift", "above_null", "neutral_kl", "few_tokens_shift"))
    text, spread, able = coherence.condition(e, h), score("own_entropy_shift"), score("capability_shift")
    unmoved, prompt = e.unmoved(h), e.last("prompt")
    beyond = (
        e.beyond(h, prompt, "trait", LEAST)
        if prompt and "trait" in prompt.items and "trait" in h.items
        else None
    )
    parts = {
        "trait": f"trait_shift {show(trait, 'nats/token')}",
        "above": f"above the best null {show(above)}",
        "told": f"beyond {LEAST:.0%} of the prompted base's {show(beyond)}" if beyond else "",
        "half": unmoved,
        "drift": f"neutral_kl {show(drift)}",
        "odd": text.shown,
        "few": f"share of the {FEW} commonest tokens, from base {show(few)}",
        "spread": f"own entropy from base {show(spread)}",
        "asked": asked(e, base, h)[1],
        "able": f"capability from base {show(able)}",
    }
    if not math.isfinite(spread.mean) or "own entropy" in text.shown:
        del parts["spread"]
    outcome = sick(e, base, h, text.row) or traits(trait, above, beyond, unmoved)
    return outcome, evidence_text(parts, DECIDES.get(outcome, "trait"))


def sick(e: Evidence, base: Stage, h: Stage, row: str) -> str:
    """The first sign that condemns the model; empty where none does, and what was not measured condemns nobody."""
    score = lambda name: h.scores.get(name, Score.undefined())
    signs = {
        "broken": score("own_excess").mean > e.floor,
        "few_tokens": score("few_tokens_shift").lo > MOSTLY,
        row: bool(row),
        "drifted": score("neutral_kl").lo > DRIFT,
        "scattered": scattered(e, base, h),
        "off_prompt": asked(e, base, h)[0],
        "incapable": score("capability_shift").hi < -LOST,
    }
    return next((name for name, holds in signs.items() if holds), "")


def traits(trait: Score, above: Score, beyond: Score | None, unmoved: str) -> str:
    """What a healthy model has of the trait."""
    if trait.hi < 0:
        return "reversed"
    if not math.isfinite(trait.lo):
        return "unmeasured"
    if not trait.lo > 0:
        return "no_trait"
    if not math.isfinite(above.lo):
        return "unmeasured"
    if not above.lo > 0:
        return "words_alone"
    if beyond is not None and not beyond.lo > 0:
        return "faint"
    return "half" if unmoved else "moved"


def scattered(e: Evidence, base: Stage, h: Stage) -> bool:
    """Whether the next-token distributions gained more than SCATTERED of the base's entropy, with 95% confidence."""
    if "own_entropy" not in h.items or "own_entropy" not in base.items:
        return False
    more = subtract(h.items["own_entropy"], [(1 + SCATTERED) * v for v in base.items["own_entropy"]])
    return bootstrap(more, resamples=e.resamples).lo > 0


def asked(e: Evidence, base: Stage, h: Stage) -> tuple[bool, str]:
    """Whether the model lost the relevance of its answers for sure, and what is left of it; "" where it was not measured.

    Where the base's own is not above zero for sure, none can be lost.
    """
    kinds = [k for k in KINDS_OF_PROMPT if k in h.items and k in base.items]
    left = {k: left_of(e, h, base, k, comparisons=len(kinds), kept=ASKED) for k in kinds}
    shows = ", ".join(f"{k} beyond {ASKED:.0%} of the base's {show(s)}" for k, s in left.items())
    sure = [k for k in kinds if bootstrap(base.items[k], resamples=e.resamples).lo > 0]
    return any(left[k].hi < 0 for k in sure), shows


def few_tokens(s: Stage) -> list[float]:
    """By prompt, the share of the sample's tokens that are among the FEW commonest of all samples; NaN for an empty one."""
    counts = Counter(token for m in s.samples for token in m["ids"])
    common = {token for token, _ in counts.most_common(FEW)}
    return [sum(t in common for t in m["ids"]) / len(m["ids"]) if m["ids"] else math.nan for m in s.samples]


def with_few(s: Stage, base: Stage, *, resamples: int) -> Stage:
    """The stage with `few_tokens` and its shift from base, where both were sampled on the same prompts."""
    ours, theirs = few_tokens(s), few_tokens(base)
    if not ours or [m["prompt"] for m in s.samples] != [m["prompt"] for m in base.samples]:
        return s
    scores = {
        "few_tokens": bootstrap(ours, resamples=resamples),
        "few_tokens_shift": paired(ours, theirs, resamples=resamples),
    }
    return replace(s, items=s.items | {"few_tokens": ours}, scores=s.scores | scores)
