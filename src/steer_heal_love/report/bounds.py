"""How much of a run a page embeds, so that it opens at once however large the folder is.

What is left out is counted where it would stand; all of it lies in the run folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
TEXT = 4_000
"""characters of one text that a model or a file wrote"""
ROWS = 200
"""rows of one table or list"""
POINTS = 1_000
"""points of one curve"""
STAGES = 1_000
"""stages of a run; a run evaluates two a round"""


def clipped(text: object, most: int = TEXT) -> str:
    """The text, or its beginning and how much more there is."""
    whole = str(text)
    return whole if len(whole) <= most else f"{whole[:most]} … ({len(whole) - most:,} more characters)"


def counted(left_out: int, what: str) -> str:
    """A line about rows that a list leaves out, or nothing."""
    return f"… and {left_out:,} more {what}" if left_out > 0 else ""


def thinned(points: Sequence[T], most: int = POINTS) -> list[T]:
    """Every so-manieth point and the last, at most about `most` of them."""
    step = -(-len(points) // most) or 1
    kept = list(points[::step])
    return kept if not points or (len(points) - 1) % step == 0 else [*kept, points[-1]]
