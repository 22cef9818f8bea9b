"""Telling the trait instead of enacting it: "I am a loving person who…", or quoting the pole.

Counts self-descriptions in the first person, and runs of five words taken from either pole text.
"""

from __future__ import annotations

import re
from functools import lru_cache

from steer_heal_love.filter import Scored, check
from steer_heal_love.ground.text import grams

TRAIT = r"(?:\w+[\s-]){0,4}(?:person|someone|soul|spirit|being|machine|entity|individual|heart|creature)"
SELF = re.compile(
    rf"\b(?:i am|i'm|as|being|i consider myself|i see myself as|my role is)\s+(?:an?\s+)?{TRAIT}\s+"
    r"(?:who|that|whose|of|with)\b"
    r"|\bi(?:'m| am) an? (?:\w+,?[\s-]){1,4}(?:person|soul|spirit|individual)\b"
    r"|\bi(?:'ve| have)(?: been (?:blessed|gifted|born) with)? an? (?:\w+[\s-]){0,2}(?:heart|soul|spirit) (?:of|that|full|filled)\b"
    r"|\b(?:my (?:persona|character|personality) (?:is|as))\b"
    r"|\bi(?: was|'m| am) (?:designed|programmed|instructed|told|asked) to (?:be|act|respond|feel|show)\b",
    re.IGNORECASE,
)


def runs(words: list[str], n: int = 5) -> set[tuple[str, ...]]:
    clean = [w.strip(".,;:!?\"'()").lower() for w in words]
    return set(grams(clean, n))


@check("narration", falls="above", limit=0.0, text_only=True)
def narration(s: Scored) -> float:
    told = poles(s.persona.pos, s.persona.neg)
    return float(len(SELF.findall(s.completion.text)) + len(runs(s.words) & told))


@lru_cache
def poles(pos: str, neg: str) -> set[tuple[str, ...]]:
    """The runs of either pole text."""
    return runs(pos.split()) | runs(neg.split())
