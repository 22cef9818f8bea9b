"""Gate 8. Does the healed model still answer what it was asked?

Reads `relevance` of the last healed stage (`evals.relevance`): how many nats per token the prompt tells the base about
the model's own answer. A model can drift little, repeat nothing and read fluently, and yet say the same warm words to
every question. The claim is about what is kept of the base's own relevance r: mean(healed − KEPT·base) by prompt, for probe
questions, where a persona shows, and for neutral prompts, where it should not. One kind that is lost is enough.
"""

from __future__ import annotations

import math

from steer_heal_love.gates import Evidence, Found, Row, evidence_text, gate, show
from steer_heal_love.ground.stats import bootstrap
from steer_heal_love.nouns import Score, Stage

KEPT = 0.8
"""share of the base's relevance that a model keeps which still answers its prompts"""

KINDS = ("relevance.probes", "relevance.neutral")
"""kinds of prompts that are judged apart where both were measured"""

ROWS = {
    "kept": Row(
        "pass",
        f"at least {KEPT:.0%} of the base's relevance is kept with 95% confidence, on probe questions and on neutral prompts",
        "The healed model's answers are about their prompts, nearly as much as the base's are.",
    ),
    "unclear": Row(
        "undecided",
        f"the interval of healed minus {KEPT:.0%} of the base's relevance holds zero",
        "The data can't tell how much the healed model's answers still have to do with their prompts.",
        "Raise eval.sample_prompts, and read the samples side by side in the report.",
    ),
    "lost": Row(
        "fail",
        f"under {KEPT:.0%} of the base's relevance is left with 95% confidence on either",
        "The healed model answers its prompts less: it says what fits the persona, whatever it was asked.",
        "Lower heal.budget or rounds, and read the samples: a system prompt costs relevance too, so compare with it.",
    ),
    "none": Row(
        "undecided",
        "the base's own relevance is not above zero with 95% confidence",
        "The base's own answers show no relevance to their prompts, so none can be lost.",
        "Raise eval.sample_prompts or eval.sample_tokens, or use another model.",
    ),
}


@gate(
    "relevance",
    step=8,
    claim="The healed model's own answers are about their prompts as much as the base's are.",
    rows=ROWS,
)
def relevance(e: Evidence) -> Found | None:
    h, base = e.last("healed"), e.stages[0]
    if h is None or "relevance" not in h.items.keys() & base.items.keys():
        return None
    kinds = [kind for kind in KINDS if kind in h.items and kind in base.items] or ["relevance"]
    left = {kind: left_of(e, h, base, kind, comparisons=len(kinds)) for kind in kinds}
    worst = min(left, key=lambda kind: left[kind].hi)
    beside = [s for s in (base, e.last("prompt"), h) if s and worst in s.scores]
    parts = {
        kind: f"{kind}: healed minus {KEPT:.0%} of base {show(s, 'nats/token')}" for kind, s in left.items()
    }
    parts["each"] = ", ".join(f"{s.stage} {show(s.scores[worst])}" for s in beside)
    observed = evidence_text(parts, worst)
    if not base.scores["relevance"].lo > 0:
        return "none", observed
    if left[worst].hi < 0:
        return "lost", observed
    return ("kept" if all(s.lo > 0 for s in left.values()) else "unclear"), observed


def left_of(e: Evidence, h: Stage, base: Stage, kind: str, comparisons: int, kept: float = KEPT) -> Score:
    """mean(healed − kept·base) over the prompts that both have a value for, its interval one of `comparisons`."""
    pairs = [(a, b) for a, b in zip(h.items[kind], base.items[kind], strict=True) if math.isfinite(a + b)]
    return bootstrap([a - kept * b for a, b in pairs], resamples=e.resamples, comparisons=comparisons)
