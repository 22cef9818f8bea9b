"""Contrastive pairs as CAA keeps them (arXiv 2312.06681), and the evaluations of arXiv 2212.09251 that they come from.

    {"question": …, "answer_matching_behavior": …, "answer_not_matching_behavior": …}

Answers are often letters, such as (A), whose words stand in the question: those words become the answers, and the list of
choices is taken out of the question.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from steer_heal_love.nouns import Probe
from steer_heal_love.persona.importers import Entry, Sheet, form, other_keys, text

POS, NEG = "answer_matching_behavior", "answer_not_matching_behavior"
CHOICE = re.compile(r"^[ \t]*\(([A-Z])\)[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
LETTER = re.compile(r"\(?([A-Z])\)?[.)]?")
HEAD = re.compile(r"\s*(?:choices|options|answers?)\s*:\s*$", re.IGNORECASE)


@form("caa", "question", POS, NEG)
def caa(found: Sequence[Entry], wrong: list[str]) -> Sheet:
    sheet = Sheet(left_out=other_keys(found, "question", POS, NEG))
    letters = same = 0
    for e in found:
        asked, pos, neg = (text(e, key, wrong) for key in ("question", POS, NEG))
        question, choices = unfolded(asked)
        if LETTER.fullmatch(pos) and LETTER.fullmatch(neg):
            pos, neg = (choices.get(letter_of(a), "") for a in (pos, neg))
            if not (pos and neg and question):
                letters += 1
                continue
        if pos == neg:
            same += 1
            continue
        sheet.pairs.append(Probe(question if choices else asked, pos, neg))
    if letters:
        sheet.left_out.append(
            f"{letters} of {len(found)} rows: an answer is a letter whose words the question does not give."
        )
    if same:
        sheet.left_out.append(f"{same} of {len(found)} rows: both answers are the same.")
    return sheet


def letter_of(answer: str) -> str:
    found = LETTER.fullmatch(answer)
    return found[1] if found else ""


def unfolded(question: str) -> tuple[str, dict[str, str]]:
    """A question without its list of choices, and the words of each letter."""
    choices = list(CHOICE.finditer(question))
    if len(choices) < 2:
        return question, {}
    return HEAD.sub("", question[: choices[0].start()]).strip(), {m[1]: m[2] for m in choices}
