"""Shared banks of user messages, one a line: extraction contexts, and neutral prompts of several kinds.

Neutral prompts come in kinds and parts. `train`: the base's answers to them anchor the heal and bound its update.
`heldout`: drift is measured on them. `sealed`: opened only where they are asked for by name, never by a search.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
KINDS = ("short", "long", "code", "languages")
"""short questions, long instructions, code and formulas, languages other than English"""
PARTS = ("train", "heldout", "sealed")
FILES = {("short", "train"): "neutral_train", ("short", "heldout"): "neutral_heldout"}
"""banks that are not called neutral_<kind>_<part>"""


def bank(name: str) -> list[str]:
    """A bank's messages in order: `contexts`, `neutral_train`, `neutral_code_heldout`, …"""
    return (HERE / f"{name}.txt").read_text(encoding="utf-8").splitlines()


def named(kind: str, part: str) -> str:
    """The name of the neutral bank of that kind and part."""
    return FILES.get((kind, part), f"neutral_{kind}_{part}")


def names() -> list[str]:
    """Every bank."""
    return ["contexts", *(named(kind, part) for part in PARTS for kind in KINDS)]


def mix(kinds: Sequence[str], part: str, n: int) -> list[tuple[str, str]]:
    """`n` neutral prompts as (kind, prompt), a kind at a time in turn, so that the shares are equal and so are those of
    every stretch; what a kind's bank lacks is left out."""
    banks = {kind: bank(named(kind, part)) for kind in kinds}
    share = [n // len(kinds) + (i < n % len(kinds)) for i in range(len(kinds))]
    turns = [
        (kind, banks[kind][k])
        for k in range(max(share, default=0))
        for kind, most in zip(kinds, share, strict=True)
        if k < min(most, len(banks[kind]))
    ]
    return turns
