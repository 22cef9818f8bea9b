"""Whether a prompt holds what was said, ends at the assistant tag, and is the same on another day."""

from __future__ import annotations

from steer_heal_love.doctor import Finding, Patient, check
from steer_heal_love.ground import templates
from steer_heal_love.ground.chat import prompt_ids

SYSTEM, USER = "Speak of rivers.", "What is a lake?"


@check("template", 1)
def template(p: Patient) -> Finding:
    text = p.tok.decode(prompt_ids(p.tok, USER, SYSTEM))
    lost = [said for said in (SYSTEM, USER) if said not in text]
    if lost:
        return Finding("template", f"the prompt lacks {lost}", "fails", "give another: --template FILE.jinja")
    odd = templates.look(p.tok, p.name)
    if templates.CLOCK in str(p.tok.chat_template):
        odd.append("its date is pinned to 1 January 2025")
    tag = text.rpartition(USER)[2]
    seen = f"system and user text come through; the assistant tag is {tag!r}"
    return Finding(
        "template",
        "; ".join([seen, *odd]),
        "note" if odd else "well",
        "read the prompts that it makes" if odd else "",
    )
