"""Measures of a text alone, shared by the filter, the instruments and the linters of the banks.

The linters' part takes located texts, `where → text`, and gives findings, one string "where: what" each.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Set
from functools import lru_cache

Located = Mapping[str, str]


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
    """The text's words without case and punctuation: what two texts are compared by."""
    return re.findall(r"\w+(?:'\w+)*", text.replace("\u2019", "'").casefold())


def jaccard(a: Set[str], b: Set[str]) -> float:
    """|a ∩ b| / |a ∪ b|; NaN when both are empty."""
    return len(a & b) / len(a | b) if a | b else math.nan


def outside(texts: Located, low: int, high: int) -> list[str]:
    """Findings: texts of fewer than `low` or more than `high` words between spaces."""
    counts = {where: len(text.split()) for where, text in texts.items()}
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
    return frozenset(grams(found, run)), frozenset(found)


def leaks(texts: Located, others: Located, *, run: int = 5, overlap: float = 1.0) -> list[str]:
    """Findings: pairs sharing `run` words in a row, or a Jaccard overlap of their words above `overlap`."""
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
