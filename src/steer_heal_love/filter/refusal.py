"""Refusals and assistant boilerplate, which carry no trait and teach evasion."""

from __future__ import annotations

import re

from steer_heal_love.filter import Scored, check

BOILERPLATE = re.compile(
    r"\bas an? (?:\w+\s)?(?:ai|a\.i\.|artificial intelligence|language model|chatbot|virtual assistant)\b"
    r"|\bi(?:'m| am) (?:just |only )?an? (?:\w+\s)?(?:ai|artificial intelligence|language model|chatbot)\b"
    r"|\bi(?:'m| am) (?:very |so |really )?sorry,? (?:but )?(?:i|we) (?:can(?:no|')t|am unable|won't)\b"
    r"|\bi(?: can(?:no|')t|(?: am|'m) (?:unable|not able) to| won't) (?:help|assist|provide|fulfill|comply|answer)\b"
    r"|\bi(?:'m| am) not (?:\w+\s)?(?:equipped|programmed|designed|authori[sz]ed) to\b"
    r"|\bi (?:don't|do not) have the (?:ability|capability|capacity) to\b"
    r"|\bi(?:'m| am) (?:not a|no) (?:substitute|replacement) for (?:\w+\s)?(?:professional|medical|legal)\b"
    r"|\bi (?:don't|do not) have (?:personal |real )?(?:feelings|emotions|opinions|experiences|beliefs|preferences)\b",
    re.IGNORECASE,
)


@check("refusal", falls="above", limit=0.0, text_only=True)
def refusal(s: Scored) -> float:
    return float(len(BOILERPLATE.findall(s.completion.text.replace("\u2019", "'"))))
