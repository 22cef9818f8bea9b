"""Where verbs print."""

from __future__ import annotations

from rich.console import Console

out = Console()
err = Console(stderr=True)


def say(message: str, style: str) -> None:
    """To stderr, a line as long as it is: a path that is broken cannot be copied."""
    err.print(message, style=style, markup=False, highlight=False, soft_wrap=True)
