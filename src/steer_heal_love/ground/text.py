"""Measures of a text alone, shared by the filter, the instruments and the linters of the banks.

The linters' part takes located texts, `where → text`, and gives findings, one string "where: what" each.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Set
from functools import lru_cache

Located = Mapping[str, str]
JOINERS = "\u200c\u200d"
"""marks without a glyph that Persian, Hindi and others write inside words"""
CLOSE = (
    (0x0E00, 0x0FFF, 3),
    (0x1000, 0x109F, 3),
    (0x1780, 0x17FF, 3),
    (0x1950, 0x19DF, 3),
    (0x3040, 0x30FF, 2),
    (0x31F0, 0x31FF, 2),
    (0x3400, 0x4DBF, 2),
    (0x4E00, 0x9FFF, 2),
    (0xF900, 0xFAFF, 2),
    (0xFF66, 0xFF9D, 2),
    (0x20000, 0x3FFFF, 2),
)
"""scripts without spaces between words (Thai, Lao, Tibetan, Burmese, Khmer, Tai, kana, Chinese characters): first and
last code point, and how many letters a word of running text has, about what segmenters find"""


@lru_cache(maxsize=65_536)
def letters_a_word(char: str) -> int:
    """How many letters a word has where this is a letter of a script without spaces; 0 for any other character."""
    if not char.isalnum():
        return 0
    return next((n for first, last, n in CLOSE if first <= ord(char) <= last), 0)


@lru_cache(maxsize=65_536)
def is_mark(char: str) -> bool:
    """Whether a character belongs to the letter before it: a vowel sign, an accent, a joiner."""
    return char in JOINERS or unicodedata.category(char).startswith("M")


def grams(words: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def repeated_share(words: list[str], n: int = 3) -> float:
    """Share of word n-grams that occurred earlier in the text; 0 for texts shorter than n."""
    found = grams(words, n)
    return 1 - len(set(found)) / len(found) if found else 0.0


def distinct(words: list[str], n: int = 2) -> float:
    """Different over all word n-grams; NaN for texts shorter than n. Source: arXiv 1510.03055."""
    found = grams(words, n)
    return len(set(found)) / len(found) if found else math.nan


def words(text: str) -> list[str]:
    """The text's words without case and punctuation: what two texts are compared by.

    Combining marks belong to their letter, as in Hindi. In scripts without spaces, such as Chinese, Thai or Khmer,
    each letter with its marks is a word of its own.
    """
    text = text.replace("\u2019", "'").casefold()
    if text.isascii():
        return re.findall(r"\w+(?:'\w+)*", text)
    out, word = [], ""
    for char in text:
        if letters_a_word(char):
            if word:
                out.append(word)
            word = char
        elif char.isalnum() or char == "_":
            if word and letters_a_word(word[0]):
                out.append(word)
                word = ""
            word += char
        elif word and (is_mark(char) or char == "'"):
            word += char
        elif word:
            out.append(word)
            word = ""
    return [w.rstrip("'") for w in [*out, word] if w]


def spoken(text: str) -> list[str]:
    """What stands between spaces, in lower case, punctuation kept; letters of scripts without spaces one by one."""
    text = text.lower()
    if apart := [c for c in set(text) if letters_a_word(c)]:
        text = text.translate({ord(c): f" {c}" for c in apart})
    return text.split()


def count_words(text: str) -> int:
    """Words between spaces; in scripts without spaces, about as many as a segmenter finds."""
    close = [n for char in text if (n := letters_a_word(char))]
    if not close:
        return len(text.split())
    spaced = "".join(" " if letters_a_word(c) or is_mark(c) else c for c in text).split()
    return sum(any(map(str.isalnum, w)) for w in spaced) + math.ceil(sum(1 / n for n in close))


def closely_written(found: list[str]) -> bool:
    """Whether most of the words are letters of a script without spaces."""
    return sum(bool(letters_a_word(w[0])) for w in found) > len(found) / 2


def jaccard(a: Set[str], b: Set[str]) -> float:
    """|a ∩ b| / |a ∪ b|; NaN when both are empty."""
    return len(a & b) / len(a | b) if a | b else math.nan


def outside(texts: Located, low: int, high: int) -> list[str]:
    """Findings: texts of fewer than `low` or more than `high` words, as `count_words` counts them."""
    counts = {where: count_words(text) for where, text in texts.items()}
    return [
        f"{where}: {n} words; expected {low} to {high}" for where, n in counts.items() if not low <= n <= high
    ]


def duplicates(texts: Located) -> list[str]:
    """Findings: texts with the same `words` as an earlier one."""
    first: dict[tuple[str, ...], str] = {}
    out = []
    for where, text in texts.items():
        earlier = first.setdefault(tuple(words(text)), where)
        if earlier != where:
            out.append(f"{where}: duplicate of {earlier}: {text!r}")
    return out


@lru_cache(maxsize=16384)
def runs_and_words(text: str, run: int) -> tuple[frozenset[tuple[str, ...]], frozenset[str]]:
    """A text's runs of `run` words and its words; kept, since the linters compare each text many times."""
    found = words(text)
    row = 2 * run if closely_written(found) else run
    return frozenset(grams(found, row)), frozenset(found)


def leaks(texts: Located, others: Located, *, run: int = 5, overlap: float = 1.0) -> list[str]:
    """Findings: pairs sharing `run` words in a row, or a Jaccard overlap of their words above `overlap`.

    In scripts without spaces, twice as many letters in a row.
    """
    left, right = ({k: runs_and_words(text, run) for k, text in side.items()} for side in (texts, others))
    holders: dict[tuple[str, ...], list[str]] = {}
    for other, (runs, _) in right.items():
        for gram in runs:
            holders.setdefault(gram, []).append(other)
    out = []
    for where, (runs, used) in left.items():
        shared: dict[str, list[tuple[str, ...]]] = {}
        for gram in runs & holders.keys():
            for other in holders[gram]:
                shared.setdefault(other, []).append(gram)
        for other in right if overlap < 1 else sorted(shared):
            if other in shared:
                found = f"shares {' '.join(min(shared[other]))!r}"
            elif (share := jaccard(used, right[other][1])) > overlap:
                found = f"word overlap {share:.2f}"
            else:
                continue
            out.append(f"{where}: leak: {found} with {other}: {others[other]!r}")
    return out
