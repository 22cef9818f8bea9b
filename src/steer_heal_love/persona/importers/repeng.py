"""Contrastive texts as users of repeng keep its dataset entries.

    {"positive": …, "negative": …}        perhaps with the question they answer: prompt, question or user

Two texts that end alike and differ before are one text begun under two instructions: contexts to read a vector in, and
no answers. What tells those apart is shown, to write the poles from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from steer_heal_love.nouns import Probe
from steer_heal_love.persona.importers import Entry, Sheet, form, other_keys, text

ASKED = ("prompt", "question", "user")
SHOWN = 12
"""differences shown"""


@form("repeng", "positive", "negative")
def repeng(found: Sequence[Entry], wrong: list[str]) -> Sheet:
    sheet = Sheet(left_out=other_keys(found, "positive", "negative", *ASKED))
    told: Counter[tuple[str, str]] = Counter()
    for e in found:
        pos, neg = (text(e, key, wrong) for key in ("positive", "negative"))
        key = next((k for k in ASKED if k in e.data), None)
        if difference := instructed(pos, neg):
            told[difference] += 1
        elif pos and pos != neg:
            sheet.pairs.append(Probe(text(e, key, wrong) if key else "", pos, neg))
    if told:
        sheet.left_out.append(
            f"{told.total()} of {len(found)} rows: both texts end alike, so they are one beginning under two instructions "
            "and no answers."
        )
        sheet.beside = [f"pos: {pos}   neg: {neg}" for (pos, neg), _ in told.most_common(SHOWN)]
    return sheet


def instructed(pos: str, neg: str) -> tuple[str, str] | None:
    """What tells two texts apart that begin and end with the same word; None for others."""
    a, b = pos.split(), neg.split()
    if a == b or len(a) < 3 or len(b) < 3 or a[0] != b[0] or a[-1] != b[-1]:
        return None
    while a[0] == b[0] and len(a) > 1 and len(b) > 1:
        a, b = a[1:], b[1:]
    while a[-1] == b[-1] and len(a) > 1 and len(b) > 1:
        a, b = a[:-1], b[:-1]
    return " ".join(a), " ".join(b)
