"""One writer a folder: a lock that the system lets go of when its process ends, however it ends.

In: a run's folder, or a comparison's. A second writer is refused at once, since two would write each other's files.
Readers (`shl report`, `shl export`) take no lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.shown import shown
from steer_heal_love.ground.untrusted import inside

NAME = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder as its only writer. Raises `UserError` where another process, or another run here, holds it."""
    try:
        lock = filelock.FileLock(inside(folder, folder / NAME), timeout=0)
        lock.acquire()
    except filelock.Timeout as e:
        raise UserError(
            f"{shown(folder)}: another process is writing there. Wait until it has ended, or end it; a stopped "
            "process (Ctrl-Z) holds the folder too. Nothing was changed."
        ) from e
    except (OSError, NotImplementedError) as e:
        why = getattr(e, "strerror", None) or e
        raise UserError(f"cannot lock {shown(folder)}: {why}. A run needs a folder that it can write.") from e
    try:
        yield
    finally:
        lock.release()
