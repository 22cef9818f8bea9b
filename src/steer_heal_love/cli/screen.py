"""Where verbs print."""

from __future__ import annotations

import sys

from rich.console import Console

out = Console()
err = Console(stderr=True)


def say(message: str, style: str) -> None:
    """To stderr, a line as long as it is: a path that is broken cannot be copied."""
    err.print(message, style=style, markup=False, highlight=False, soft_wrap=True)


def say_imports() -> None:
    """Say what the next seconds are spent on, where torch is not imported yet."""
    if "torch" not in sys.modules:
        say("importing torch and transformers", "dim")
