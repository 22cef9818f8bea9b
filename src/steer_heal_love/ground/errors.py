"""Two kinds of failure: what the user can fix (`UserError`, printed without traceback, exit 2) and bugs."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator


class UserError(Exception):
    """Something the user can fix: says what was expected, what was found, where, and what to do."""


class Starved(Exception):
    """Too few completions survived the filter at any dose: the round cannot train honestly."""


class Diverged(Exception):
    """Training produced a loss that is not a number; the last good state is kept."""


@contextlib.contextmanager
def resumable(command: str) -> Iterator[None]:
    """Ctrl-C inside says which command goes on."""
    try:
        yield
    except KeyboardInterrupt as e:
        raise KeyboardInterrupt(
            f"everything up to the last finished step is kept; to go on: {command}"
        ) from e


def unknown(kind: str, found: str, known: Iterable[str], also: str = "") -> UserError:
    """A `UserError` for a name outside a registry, with what exists (`also`: in words) and the nearest match."""
    names = sorted(known)
    near = difflib.get_close_matches(found, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UserError(f"unknown {kind} {found!r}; there is: {', '.join(names)}{also}.{hint}")
