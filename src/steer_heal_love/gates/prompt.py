"""Gate 6. Weights against words: the healed model against the base that is merely told.

Reads the last healed and the prompted stage, paired by probe; coherence first, then trait, then what it cost.
"""

from __future__ import annotations

from steer_heal_love.gates import Evidence, Found, Row, gate, show, told

ROWS = {
    "beaten": Row(
        "pass",
        "the healed model's trait lies above the prompted one's, at no more drift on neutral prompts",
        "The weights carry more of the trait than the system prompt does.",
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
        "Healed and prompted are not distinguishable on the probes.",
        "More rounds, or more probes. The weights still save the prompt's tokens.",
    ),
    "wins": Row(
        "fail",
        "the prompted model's trait lies above the healed one's",
        "The prompt wins: a system prompt moves the trait further, for free.",
        "More rounds, a higher dose, or a larger heal.budget.",
    ),
    "broken": Row(
        "fail",
        "the healed model's own text is past the coherence floor, whatever its trait",
        "The healed model is incoherent, so its trait is no match for a prompt's.",
        "See the heal and loop gates.",
    ),
}  # fmt: skip


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
    parts = {
        "gap": f"healed minus prompted {show(gap, 'nats/token')}: {ours['trait_shift']:+.3f} against {told_so['trait_shift']:+.3f}",
        "cost": f"neutral_kl {ours['neutral_kl']:.4f} against {told_so['neutral_kl']:.4f}, {show(cost)}",
        "odd": f"own_excess {show(h.scores['own_excess'])} against {show(p.scores['own_excess'])}",
    }  # fmt: skip
    if by_half := e.halves(h, p):
        parts["halves"] = f"pos answers {show(by_half.pos)}, neg answers {show(by_half.neg)}: {by_half.says}"
    if e.incoherent(h):
        return "broken", told(parts, "odd")
    if gap.hi < 0:
        return "wins", told(parts, "gap")
    if not gap.lo > 0:
        return "even", told(parts, "gap")
    return ("dearer", told(parts, "cost")) if cost.lo > 0 else ("beaten", told(parts, "gap"))
