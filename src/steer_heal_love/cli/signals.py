"""Ctrl-C and the system's polite end of a process: the first unwinds and says how to go on, the second ends at once.

Both may come at any moment. Whatever was finished lies whole in its folder, so that ending at once loses no more than
a kill would: the step that was under way.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
BY_SIGNAL = 128
"""a process that a signal ended exits with this and the signal's number"""


class Stopped(KeyboardInterrupt):
    """A signal that asks the process to end, by its `number`."""

    number: int = signal.SIGINT


class Terminated(Stopped):
    number = signal.SIGTERM


def ended_by(e: BaseException | None) -> int:
    """The exit status for an interrupt, whichever of its causes was the signal."""
    while e is not None and not isinstance(e, Stopped):
        e = e.__cause__ or e.__context__
    return BY_SIGNAL + (e.number if isinstance(e, Stopped) else signal.SIGINT)


def at_once(number: int, _frame: FrameType | None) -> None:
    """The second signal: nothing is waited for any more."""
    with contextlib.suppress(OSError):
        os.write(2, b"interrupted\n")
    os._exit(BY_SIGNAL + number)


def once(number: int, _frame: FrameType | None) -> None:
    """The first signal."""
    for other in SIGNALS:
        signal.signal(other, at_once)
    raise (Terminated if number == signal.SIGTERM else Stopped)


@contextlib.contextmanager
def heeded() -> Iterator[None]:
    """Around a verb; another thread than the main one can't set signals, and leaves them as they are."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[Any, Any] = {s: signal.signal(s, once) for s in SIGNALS}
    try:
        yield
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
