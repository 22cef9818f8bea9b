"""Where verbs print: the one place that writes to the terminal.

What a file, a folder or a model says is shown as `ground.shown` shows it, never raw, and never as rich's markup.
A reader that goes away (`| head -1`), a full device or an encoding without our letters ends no verb in a traceback.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.shown import shown

UNWRITABLE = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG)
"""what a device says that takes no more"""
PACKAGE = Path(__file__).parents[1]
READER_GONE = 141
"""exit status, as the shell has it for a process that a closed pipe ended"""


class Screen(Console):
    """A console that shows every control character of a text escaped; its own for colour and cursor stay."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else shown(text, lines=True), style, control)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


out = Screen()
err = Screen(stderr=True)


def say(message: str, style: str) -> None:
    """To stderr, a line as long as it is: a path that is broken cannot be copied."""
    with contextlib.suppress(OSError):  # nobody listens any more
        err.print(Text(shown(message, lines=True)), style=style, highlight=False, soft_wrap=True)


def warn(message: str) -> None:
    say(f"warning: {message}", "yellow")


@contextmanager
def ours_as_lines() -> Iterator[None]:
    """Python's warnings that this package gives, as lines of the tool; a library's as Python shows them."""
    shows = warnings.showwarning

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: Any, **more: Any
    ) -> None:
        if category is UserWarning and Path(filename).is_relative_to(PACKAGE):
            warn(str(message))
        else:
            shows(message, category, filename, lineno, *rest, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = shows


def tell(message: object) -> None:
    """A result, to stdout, a line as long as it is; a text may have several, a path is one."""
    out.print(Text(shown(message, lines=isinstance(message, str))), highlight=False, soft_wrap=True)


def lenient() -> None:
    """Where the terminal's encoding has no letter for a character, show its escape."""
    for stream in (sys.stdout, sys.stderr):
        encoding = getattr(stream, "encoding", None) or ""
        if hasattr(stream, "reconfigure") and encoding.lower().replace("-", "") != "utf8":
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def output() -> Iterator[None]:
    """Around a verb: a reader that went away ends it silently; a device that takes no more, with a message."""
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        unplug()
        sys.exit(READER_GONE)
    except OSError as e:
        if e.errno not in UNWRITABLE:
            raise
        unplug()
        raise UserError(f"cannot write the output: {e.strerror}.") from e


def unplug() -> None:
    """Let what is still buffered for stdout go nowhere, so that the interpreter's own flush says nothing."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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

    before: Any = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
