"""Whether an answer can end: the template's end of turn is one token, decoding stops at it, and it can be learnt."""

from __future__ import annotations

from steer_heal_love.doctor import Finding, Patient, check
from steer_heal_love.ground.chat import template_end

FAINT = 0.1
"""share of the head's median row below which a token's row was hardly ever trained"""


@check("end of turn", 2)
def ends(p: Patient) -> Finding:
    own, rows = template_end(p.tok), p.model.get_output_embeddings().weight
    names = ", ".join(map(repr, p.tok.convert_ids_to_tokens(sorted(p.ends)))) or "none"
    if not p.ends:
        return Finding(
            "end of turn",
            "no token ends an answer",
            "note",
            "answers end by their length alone; see --template",
        )
    if max(p.ends) >= len(rows):
        return Finding(
            "end of turn",
            f"{names}: past the head's {len(rows)} rows",
            "fails",
            "the tokenizer is another model's",
        )
    if own is None:
        return Finding(
            "end of turn",
            f"stops at {names}; the template puts no token after an answer",
            "note",
            "few answers will end by themselves; see --template",
        )
    norms = rows.detach().float().norm(dim=1)
    share = (norms[own] / norms.median()).item()
    seen = f"stops at {names}; the template ends a turn with {p.tok.convert_ids_to_tokens(own)!r}"
    if not share >= FAINT:
        return Finding(
            "end of turn",
            f"{seen}, whose row in the head is {share:.2g} of the median",
            "note",
            "the model was hardly trained on it; take a template whose end it knows",
        )
    return Finding("end of turn", seen, "well")
