"""Gate 5. Another round adds trait, the same way, and the model stays coherent.

Reads the healed stages, and how far each round's vector has turned from the first. Steps between rounds share one
error; the gain over the whole loop is a look of its own. `stop_reason` ends a loop early by the same evidence.
"""

from __future__ import annotations

import itertools
import math

from steer_heal_love.gates import Evidence, Found, Row, coherence, evidence_text, gate, show
from steer_heal_love.gates.evidence import rows_of
from steer_heal_love.nouns import Score

TURNED = 0.5
"""cosine with the first vector under which the loop follows another direction"""
LITTLE = 0.25
"""share of the first round's trait: what a last round adds with 95% confidence less of is little"""

ROWS = {
    "rises": Row(
        "pass",
        "the last round's trait_shift lies above the first's, and no round lost any",
        "The trait rose over the rounds and no round lost any.",
    ),
    "saturates": Row(
        "pass",
        f"the trait rose, but the last round's interval ends under {LITTLE:.0%} of what the first round moved",
        "The loop saturates: the rounds added trait, but the last one hardly any.",
        "Stop a round earlier. For more trait, raise heal.budget or the dose.",
    ),
    "flat": Row(
        "undecided",
        "the interval of all later rounds together holds zero",
        "Later rounds keep the trait, but what they add can't be told from zero.",
        "Raise heal.budget or generate.prompts, or eval.probes if there are few.",
    ),
    "falls": Row(
        "fail",
        "the trait fell between two rounds",
        "A later round lost trait.",
        "Earlier rounds may be the better model: export one of those.",
    ),
    "wanders": Row(
        "fail",
        f"the vector of a later round has a cosine under {TURNED:g} with the first round's",
        "The loop wanders: it no longer moves along the direction it began with.",
        "Use the rounds before it turned. Read the diary: what does the later vector say?",
    ),
    "single": Row("undecided", "one healed round", "One round says nothing about a loop.", "Raise rounds."),
    **coherence.rows(
        "A healed model of the loop", "Use an earlier round; raise heal.anchor, lower heal.budget."
    ),
}


@gate(
    "loop",
    step=5,
    claim="Another round adds trait along the same direction, and the model stays coherent.",
    needs=("trait_shift", "own_excess"),
    rows=ROWS,
)
def loop(e: Evidence) -> Found | None:
    healed = [s for s in e.stages if s.stage == "healed"]
    if not healed:
        return None
    first, last = healed[0], healed[-1]
    steps = [e.versus(b, a, comparisons=len(healed) - 1) for a, b in itertools.pairwise(healed)]
    total = e.versus(last, first)
    cosines = rows_of(e, lambda r: r.vector.cosine_with_first)
    turned = min((c for n, c in cosines.items() if n > 0), default=math.nan)
    text = coherence.worst(e, healed)
    added = [f"in round {s.round} {show(d)}" for s, d in zip(healed[1:], steps, strict=True)]
    parts = {
        "total": f"since round 0 {show(total, 'nats/token')}" if steps else "one healed round",
        "steps": f"added {', '.join(added)}" if steps else "",
        "odd": text.shown,
        "turned": f"least cosine with the first vector {turned:.2f}" if steps else "",
    }

    if text.row:
        return text.row, evidence_text(parts, "odd")
    if not steps:
        return "single", evidence_text(parts, "total")
    if any(d.hi < 0 for d in steps):
        return "falls", evidence_text(parts, "steps")
    if turned < TURNED:
        return "wanders", evidence_text(parts, "turned")
    if not total.lo > 0:
        return "flat", evidence_text(parts, "total")
    if steps[-1].hi < LITTLE * first.scores["trait_shift"].mean:
        return "saturates", evidence_text(parts, "steps")
    return "rises", evidence_text(parts, "total")


def stop_reason(e: Evidence, patience: int) -> str | None:
    """Why another round is not worth its time: the text is past the coherence floor, or the trait stands still."""
    healed = [s for s in e.stages if s.stage == "healed"]
    if not healed:
        return None
    odd = healed[-1].scores.get("own_excess", Score.undefined())
    if odd.mean > e.floor:
        return f"own_excess {odd.mean:.3f} is past the coherence floor {e.floor:g}"
    if 0 < patience < len(healed) and "trait" in healed[-1].items:
        gain = e.versus(healed[-1], healed[-1 - patience])
        if not gain.lo > 0:
            return (
                f"no gain that can be told from zero in {patience} rounds: trait {show(gain, 'nats/token')}"
            )
    return None
