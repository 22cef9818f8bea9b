"""How a long step reports progress without knowing who watches.

`with track("heal", total) as advance:` gives a function to call with the number of units done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Advance = Callable[[int], None]
Track = Callable[[str, int], AbstractContextManager[Advance]]


@contextmanager
def silent(_label: str, _total: int) -> Iterator[Advance]:
    """Nobody watches."""
    yield lambda _n: None


def labelled(track: Track, by: str) -> Track:
    """The same, every step's name after `by`."""
    return lambda label, total: track(f"{by}: {label}", total)
