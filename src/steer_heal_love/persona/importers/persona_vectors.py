"""A trait file of persona vectors (arXiv 2507.21509): system-prompt pairs, questions, and a prompt for a judge.

    {"instruction": [{"pos": …, "neg": …}, …], "questions": […], "eval_prompt": …}

An instruction is a whole sentence told to a model; a pole completes "You are …". The pair nearest to a pole's length
becomes one, and the others stand beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from steer_heal_love.ground.text import count_words
from steer_heal_love.persona.importers import Entry, Sheet, form, other_keys, text, texts
from steer_heal_love.persona.poles import TOLD, as_pole, unfitness
from steer_heal_love.persona.table import LONGEST

USED = ("instruction", "questions", "eval_prompt")


@form("persona_vectors", "instruction", "questions")
def persona_vectors(found: Sequence[Entry], wrong: list[str]) -> Sheet:
    sheet = Sheet(left_out=other_keys(found, *USED))
    if len(found) > 1:
        wrong.append(f"expected one trait, found {len(found)}")
    entry = found[0]
    pairs = instructions(entry, wrong)
    if not wrong and pairs:
        best = min(pairs, key=lambda p: unfitness(*p))
        sheet.pos, sheet.neg = best
        sheet.beside = [f"pos: {pos}   neg: {neg}" for pos, neg in pairs if (pos, neg) != best]
    sheet.questions = texts(entry, "questions", wrong)
    if "eval_prompt" in entry.data:
        words = count_words(text(entry, "eval_prompt", wrong))
        sheet.left_out.append(f"The judge's prompt (eval_prompt, {words} words): probes need no judge here.")
    return sheet


def instructions(entry: Entry, wrong: list[str]) -> list[tuple[str, str]]:
    """Every pair of instructions as poles; those of one side alone are mistakes."""
    items = entry.data["instruction"]
    if not isinstance(items, list) or not 1 <= len(items) <= 100:
        wrong.append(f"instruction: expected from 1 to 100 objects with pos and neg, found {items!r:.60}")
        return []
    out = []
    for i, item in enumerate(items):
        at = Entry(f"{entry.where}instruction[{i}].", item if isinstance(item, Mapping) else {})
        pos, neg = (text(at, key, wrong, longest=LONGEST[key] - 100) for key in ("pos", "neg"))
        out.append((as_pole(pos, TOLD), as_pole(neg, TOLD)))
    return out
