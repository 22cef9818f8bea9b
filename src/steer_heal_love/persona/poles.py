"""Poles from what people write: a sentence, an instruction or a model's answer, as a phrase that completes "You are …".

In: a text. Out: a phrase. The equation of `unfitness`: 100 for each rule of `lint_poles` that the pair breaks, plus how
many words the two are apart, so that the least unfit pair breaks the fewest rules.
"""

from __future__ import annotations

import re
from dataclasses import replace

from steer_heal_love.ground.text import count_words
from steer_heal_love.nouns import Persona

BEGINS = re.compile(r"^(?:(?:you are|be|act as|it is|this is|i am|i'm)\b[\s:,]*)+", re.IGNORECASE)
ARTICLE = re.compile(r"^(?:an?|the|one|someone|somebody)\s", re.IGNORECASE)
EMPTY = Persona("", "", "", "", {}, (), (), ())


DESCRIBED = "an assistant described by these words:"
TOLD = "an assistant that follows this instruction:"


def as_pole(text: str, otherwise: str = DESCRIBED) -> str:
    """A phrase for "You are …": what begins with an article as it is, anything else after `otherwise`."""
    phrase = BEGINS.sub("", " ".join(text.split())).strip(" \"'“”.!;,*")
    if not phrase:
        return ""
    if ARTICLE.match(phrase):
        return phrase[:1].lower() + phrase[1:]
    return f"{otherwise} {phrase}"


def unfitness(pos: str, neg: str) -> int:
    """How far a pair of poles is from what `shl lint` asks; 0 is fit."""
    from steer_heal_love.persona.lint import lint_poles

    pair = replace(EMPTY, pos=pos, neg=neg)
    return 100 * len(lint_poles(pair)) + abs(count_words(pos) - count_words(neg))
