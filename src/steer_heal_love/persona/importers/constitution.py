"""A constitution of OpenCharacterTraining (arXiv 2511.01689): traits in the first person, each with questions.

    {"trait": …, "questions": […], "additional_questions": […]}        a list of these, or one a line

All traits together are one character and so one persona. The shortest becomes the pole, the others stand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

from steer_heal_love.ground.text import count_words
from steer_heal_love.persona.importers import Entry, Sheet, form, other_keys, text, texts
from steer_heal_love.persona.table import LONGEST

USED = ("trait", "questions", "additional_questions", "clarification")


@form("constitution", "trait", "questions")
def constitution(found: Sequence[Entry], wrong: list[str]) -> Sheet:
    sheet = Sheet(left_out=other_keys(found, *USED))
    traits = [text(e, "trait", wrong, longest=LONGEST["pos"] - 100) for e in found]
    sheet.questions = [
        q
        for e in found
        for q in (*texts(e, "questions", wrong), *texts(e, "additional_questions", wrong, must=False))
    ]
    notes = [text(e, "clarification", wrong) for e in found if e.data.get("clarification")]
    chosen = min(traits, key=count_words)
    sheet.pos = f"an assistant who says of itself: {chosen.rstrip('.')}"
    sheet.beside = [t for t in traits if t != chosen] + notes
    sheet.left_out.append("A constitution names no opposite, so neg is missing.")
    return sheet
