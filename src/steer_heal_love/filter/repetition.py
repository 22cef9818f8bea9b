"""Loops, which a likelihood gate lets through: a loop is probable text.

By word: the share of 3-grams seen before in the answer. By character: how much better the text compresses
than ordinary text (zlib, bytes in / bytes out), which also sees loops without spaces.
"""

from __future__ import annotations

import zlib

from steer_heal_love.filter import Scored, check
from steer_heal_love.ground.text import repeated_share


@check("repeat_words", falls="above", text_only=True)
def repeat_words(s: Scored) -> float:
    return repeated_share(s.words)


@check("repeat_chars", falls="above", text_only=True)
def repeat_chars(s: Scored) -> float:
    raw = s.completion.text.encode()
    return len(raw) / len(zlib.compress(raw, 9)) if raw else 0.0
