"""How a long step reports progress, and shows a sample, without knowing who watches.

`with track("heal", total) as advance:` gives a function to call with the number of units done. `show(look)` is told
of each answer to the one question that a run asks all its models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from steer_heal_love.nouns import Preview

Advance = Callable[[int], None]
Track = Callable[[str, int], AbstractContextManager[Advance]]
Show = Callable[[Preview], None]


@contextmanager
def silent(_label: str, _total: int) -> Iterator[Advance]:
    """Nobody watches."""
    yield lambda _n: None


def unseen(_preview: Preview) -> None:
    """Nobody is shown it."""


def labelled(track: Track, by: str) -> Track:
    """The same, every step's name after `by`."""
    return lambda label, total: track(f"{by}: {label}", total)
