"""Numbers as text, and what came out of a run in a few sentences: for the page and for the terminal."""

from __future__ import annotations

import math

from steer_heal_love.config import RunConfig
from steer_heal_love.ground.banks import KINDS
from steer_heal_love.ground.halves import NAMES as HALVES
from steer_heal_love.ground.halves import halves, measured
from steer_heal_love.ground.stats import ratio, subtract
from steer_heal_love.nouns import Score, Stage
from steer_heal_love.report.read import RunRecord, number, score

RESAMPLES = 1000
"""of the probes, for the interval of a multiple"""
MOST = 10_000
"""items, or resamples of them, that an interval is worked out over for the page"""
COSTS = {
    "neutral_kl": "It drifts by {} nats/token on neutral prompts",
    "own_excess": "The base finds the model's text {} nats/token odder than its own",
    "own_kl": "Along its own text its next-token distribution is {} nats/token away from the base's",
}
"""what a trait costs, as the headline says it"""


def outcome(run: RunRecord) -> str:
    """What came out, in a few sentences, from the last healed stage: trait, what it cost, beside the prompt."""
    if not run.healed:
        return "No round was healed." if run.ended else "No round has been healed yet."
    last, prompt = run.healed[-1], run.stage("prompt")
    trait, prompted = score(last, "trait_shift"), score(prompt, "trait_shift")
    n = len(run.healed)
    rounds = f"{n} rounds (0 to {n - 1})" if n > 1 else "1 round"
    said = f"After {rounds} the healed model's trait shift is {interval(trait, 2)} nats/token"
    if prompted.lo > 0:
        times = interval(multiple(run, last), 2, False)
        said += f", {times} times what the base model reaches when a system prompt tells it to ({interval(prompted, 2)})"
    elif math.isfinite(prompted.mean):
        said += f"; with a system prompt, the base model reaches {interval(prompted, 2)}"
    sentences = [said, *in_halves(run, last, prompt)]
    above = score(last, "above_null")
    if math.isfinite(above.mean):
        sentences.append(
            f"{interval(above, 2)} of the trait lies above what a bias of words or a temperature reaches at the same drift"
        )
    for name, form in COSTS.items():
        if math.isfinite(cost := score(last, name).mean):
            signed = name == "own_excess"
            worst = worst_bank(last) if name == "neutral_kl" else ""
            verdict = floor(run, cost) if signed else ""
            sentences.append(
                form.format(num(cost, 3, signed)) + worst + beside(score(prompt, name).mean, signed) + verdict
            )
    return ". ".join(sentences) + "."


def in_halves(run: RunRecord, last: Stage, prompt: Stage | None) -> list[str]:
    """Where the trait comes from, pos answers or neg ones, and whether it beats the prompt on both."""
    pos, neg = score(last, "trait_pos"), score(last, "trait_neg")
    if not math.isfinite(pos.mean + neg.mean):
        return []
    also = [num(score(prompt, name).mean, 2) for name in ("trait_pos", "trait_neg")]
    beside = f" (with the prompt, {also[0]} and {also[1]})" if prompt else ""
    out = [
        f"It is the sum of two halves: pos answers became {moved(pos, 'likelier', 'less likely')} and neg answers "
        f"{moved(neg, 'less likely', 'likelier')}{beside}"
    ]
    if prompt and measured(last.items, prompt.items) and paired_items(last, prompt):
        resamples = min(max(run.config.get("eval", {}).get("resamples", 2000), 1), MOST)
        out.append(f"Against the prompt it is {halves(last.items, prompt.items, resamples=resamples).says}")
    return out


def moved(s: Score, up: str, down: str) -> str:
    """Which way a half moved and by how much: `up` where its shift is at least 0, `down` by as much below."""
    if s.mean >= 0:
        return f"{up} by {interval(s, 2)}"
    return f"{down} by {interval(Score(-s.mean, -s.hi, -s.lo, s.n), 2)}"


def paired_items(a: Stage, b: Stage) -> bool:
    """Whether both were measured on as many items, as stages of one run are."""
    names = ("trait", *HALVES)
    return all(MOST >= len(a.items.get(n, [])) == len(b.items.get(n, [])) > 0 for n in names)


def worst_bank(stage: Stage) -> str:
    """The kind of neutral prompts on which it drifts furthest, where several were measured."""
    found = {
        k: s.mean for kind in KINDS if math.isfinite((s := score(stage, k := f"neutral_kl.{kind}")).mean)
    }
    if len(found) < 2:
        return ""
    worst = max(found, key=lambda name: found[name])
    return f", most on the {worst.partition('.')[2]} ones, {num(found[worst], 3, False)}"


def multiple(run: RunRecord, last: Stage) -> Score:
    """The last healed model's trait as a multiple of the prompted one's, paired by probe; without an interval where the
    prompt's can't be told from 0, or items weren't saved."""
    base, prompt = run.stage("base"), run.stage("prompt")
    found = [s.items.get("trait", []) if s else [] for s in (base, last, prompt)]
    if not 0 < len(found[0]) <= MOST or len({len(items) for items in found}) > 1:
        return Score(
            score(last, "trait_shift").mean / score(prompt, "trait_shift").mean, math.nan, math.nan, 0
        )
    ours, theirs = (subtract(items, found[0]) for items in found[1:])
    return ratio(ours, theirs, resamples=RESAMPLES)


def floor(run: RunRecord, excess: float) -> str:
    """Whether text so odd counts as coherent."""
    most = number(run.config.get("coherence_floor", RunConfig.coherence_floor))
    return f"; past {most:g} it {'counts' if excess > most else 'would count'} as broken"


def beside(prompted: float, sign: bool) -> str:
    return f" (with the prompt, {num(prompted, 3, sign)})" if math.isfinite(prompted) else ""


def num(value: float | None, digits: int = 3, sign: bool = True) -> str:
    """A number with a true minus, or a dash where it is undefined."""
    value = number(value)
    return format(value, f"{'+' * sign}.{digits}f").replace("-", "−") if math.isfinite(value) else "–"


def percent(share: float | None) -> str:
    """A share as a whole percentage, or a dash."""
    return f"{shown}%" if (shown := num(100 * number(share), 0, False)) != "–" else shown


def interval(s: Score, digits: int = 3, sign: bool = True) -> str:
    """Mean and 95% interval, as far as they are defined."""
    text = num(s.mean, digits, sign)
    if math.isfinite(s.lo) and math.isfinite(s.hi):
        text += f" [{num(s.lo, digits, sign)}, {num(s.hi, digits, sign)}]"
    return text
