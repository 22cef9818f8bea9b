"""Foreign script and symbol soup: share of characters that are no letter of the prompt's script.

A character is odd when it is neither a letter, digit, space or common punctuation of ASCII, nor a letter of
a script that the prompt itself uses.
"""

from __future__ import annotations

import unicodedata

from steer_heal_love.filter import Scored, check
from steer_heal_love.nouns import Completion

COMMON = set(" \n\t.,;:!?'\"()-*#/%&$+=_`[]{}<>@|~^\\") | set("‘’“”–—…•°é")


def script(char: str) -> str:
    return unicodedata.name(char, "?").split(" ")[0]


def odd_share(c: Completion) -> float:
    """Share of odd characters; 0 of an empty text."""
    known = {script(char) for char in c.prompt if char.isalpha()}
    odd = sum(
        not (char in COMMON or char.isdigit() or (char.isalpha() and script(char) in known))
        for char in c.text
    )
    return odd / max(1, len(c.text))


@check("odd_chars", falls="above", quantile=0.99)
def odd_chars(s: Scored) -> float:
    return odd_share(s.completion)
