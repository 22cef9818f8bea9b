"""Gate 6. Weights against words: the healed model against the base that is merely told.

Reads the last healed and the prompted stage, paired by probe; its own text first, then trait, then both halves
of it, then what it cost: a lead that comes from one half while the other is behind compares two different things.
"""

from __future__ import annotations

from steer_heal_love.gates import Evidence, Found, Row, coherence, evidence_text, gate, show

ROWS = {
    "beaten": Row(
        "pass",
        "the healed model's trait lies above the prompted one's, neither half is behind with 95% confidence, at no more drift on "
        "neutral prompts",
        "The weights carry more of the trait than the system prompt does, and are behind on neither half of it.",
    ),
    "half": Row(
        "undecided",
        "the healed model's trait lies above the prompted one's, but one half of it is behind with 95% confidence",
        "The sum of both halves is ahead of the prompt's, but one half is behind: the evidence says which.",
        "Set heal.soft to 1 where it is lower, which raises the pos half; or raise rounds.",
    ),
    "dearer": Row(
        "undecided",
        "the healed model's trait lies above the prompted one's, and so does its neutral_kl",
        "The weights carry more of the trait than the prompt, and cost more on neutral prompts.",
        "Compare at equal cost (`shl compare`), or lower heal.budget.",
    ),
    "even": Row(
        "undecided",
        "the interval of healed minus prompted holds zero",
        "On the probes the healed model can't be told from the prompted one.",
        "Raise rounds or eval.probes. The weights still save the prompt's tokens.",
    ),
    "wins": Row(
        "fail",
        "the prompted model's trait lies above the healed one's",
        "The prompt wins: a system prompt moves the trait further, for free.",
        "Raise rounds, the dose or heal.budget.",
    ),
    **coherence.rows("The healed model", "See the heal and loop gates."),
}


@gate(
    "prompt",
    step=6,
    claim="The healed model has more of the trait than the model that is merely told to have it.",
    needs=("trait_shift", "neutral_kl", "own_excess"),
    rows=ROWS,
)
def prompt(e: Evidence) -> Found | None:
    h, p = e.last("healed"), e.last("prompt")
    if h is None or p is None:
        return None
    gap, cost = e.versus(h, p), e.versus(h, p, "neutral_kl")
    ours, told_so = ({k: v.mean for k, v in x.scores.items()} for x in (h, p))
    text = coherence.condition(e, h)
    parts = {
        "gap": f"healed minus prompted {show(gap, 'nats/token')}: {ours['trait_shift']:+.3f} against {told_so['trait_shift']:+.3f}",
        "cost": f"neutral_kl {ours['neutral_kl']:.4f} against {told_so['neutral_kl']:.4f}, {show(cost)}",
        "odd": f"{text.shown}; prompted, {coherence.condition(e, p).shown}",
    }
    if by_half := e.halves(h, p):
        parts["halves"] = f"pos answers {show(by_half.pos)}, neg answers {show(by_half.neg)}: {by_half.says}"
    if text.row:
        return text.row, evidence_text(parts, "odd")
    if gap.hi < 0:
        return "wins", evidence_text(parts, "gap")
    if not gap.lo > 0:
        return "even", evidence_text(parts, "gap")
    if by_half and by_half.missing:
        return "half", evidence_text(parts, "halves")
    return (
        ("dearer", evidence_text(parts, "cost")) if cost.lo > 0 else ("beaten", evidence_text(parts, "gap"))
    )
