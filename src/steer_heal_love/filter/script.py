"""Foreign script and symbol soup: share of characters that are no letter of the prompt's script.

A character is odd when it is neither a letter, digit, space or common punctuation of ASCII, nor a letter of
a script that the prompt itself uses.
"""

from __future__ import annotations

import unicodedata

from steer_heal_love.filter import Scored, check

COMMON = set(" \n\t.,;:!?'\"()-*#/%&$+=_`[]{}<>@|~^\\") | set("‘’“”–—…•°é")


def script(char: str) -> str:
    return unicodedata.name(char, "?").split(" ")[0]


@check("odd_chars", falls="above", quantile=0.99)
def odd_chars(s: Scored) -> float:
    text = s.completion.text
    if not text:
        return 0.0
    known = {script(c) for c in s.completion.prompt if c.isalpha()}
    odd = sum(not (c in COMMON or c.isdigit() or (c.isalpha() and script(c) in known)) for c in text)
    return odd / len(text)
