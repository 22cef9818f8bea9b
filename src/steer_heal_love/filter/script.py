"""Foreign script and symbol soup: share of characters that are no letter of the prompt's script.

A character is odd when it is neither a letter, digit, space or common punctuation of ASCII, nor a letter, a mark
or a punctuation mark of a script that the prompt itself uses. A combining mark goes with its letter.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import lru_cache
from itertools import pairwise

from steer_heal_love.filter import Scored, check
from steer_heal_love.ground.text import JOINERS, is_mark
from steer_heal_love.nouns import Completion

COMMON = set(" \n\t.,;:!?'\"()-*#/%&$+=_`[]{}<>@|~^\\") | set("‘’“”–—…•°é")

WIDE = ("CJK", "KANA", "HANGUL", "BOPOMOFO")
"""scripts that are set in squares, with punctuation marks as wide"""


@lru_cache(maxsize=4096)
def script(char: str) -> str:
    """A character's script: the first word of its name, as LATIN or DEVANAGARI; kana count as one."""
    first = unicodedata.name(char, "?").split(" ")[0].partition("-")[0]
    return "KANA" if first in ("HIRAGANA", "KATAKANA") else first


def scripts(text: str) -> set[str]:
    """The scripts that a text's letters are of; who writes kana writes Chinese characters too."""
    found = {script(char) for char in text if char.isalpha()}
    return found | {"CJK"} if "KANA" in found else found


def is_odd(char: str, before: str, known: set[str]) -> bool:
    """Whether a character that follows `before` is none of the known scripts', nor common to all."""
    if char in COMMON or char.isdigit() or (char.isascii() and char.isalpha() and "LATIN" in known):
        return False
    kind = unicodedata.category(char)
    if char in JOINERS or (kind.startswith("M") and script(char) not in known):
        return not (before.isalpha() or is_mark(before)) or (
            is_odd(before, " ", known) and not is_mark(before)
        )
    if kind[0] in "LMN" and script(char) in known:
        return False
    if kind.startswith("P"):  # a script's own full stops and quotation marks
        wide = unicodedata.east_asian_width(char) in "WF" and not known.isdisjoint(WIDE)
        return not (wide or script(char) in known)
    return True


def odd_share(c: Completion) -> float:
    """Share of odd characters; 0 of an empty text."""
    known = scripts(c.prompt)
    pairs = Counter(pairwise(" " + c.text))
    odd = sum(n for (before, char), n in pairs.items() if is_odd(char, before, known))
    return odd / max(1, len(c.text))


@check("odd_chars", falls="above", quantile=0.99, text_only=True)
def odd_chars(s: Scored) -> float:
    return odd_share(s.completion)
