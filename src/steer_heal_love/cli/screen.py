"""Where verbs print."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

out = Console()
err = Console(stderr=True)


def say(message: str, style: str) -> None:
    """To stderr, a line as long as it is: a path that is broken cannot be copied."""
    err.print(message, style=style, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def importing() -> Iterator[None]:
    """Around imports that take seconds: say so, and let Ctrl-C end the process at once. Raised inside an import, it
    would be swallowed by whatever tries another way."""
    if "torch" in sys.modules:
        yield
        return
    say("importing torch and transformers", "dim")

    def leave(*_: object) -> None:
        say("interrupted", "yellow")
        os._exit(130)

    before = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
