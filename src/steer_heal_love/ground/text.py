"""Measures of a text alone, shared by the filter and the instruments."""

from __future__ import annotations

import math


def grams(words: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def repeated_share(words: list[str], n: int = 3) -> float:
    """Share of word n-grams that occurred earlier in the text; 0 for texts shorter than n."""
    found = grams(words, n)
    return 1 - len(set(found)) / len(found) if found else 0.0


def distinct(words: list[str], n: int = 2) -> float:
    """Different word n-grams over all word n-grams; NaN for texts shorter than n. Source: arXiv 1510.03055."""
    found = grams(words, n)
    return len(set(found)) / len(found) if found else math.nan
