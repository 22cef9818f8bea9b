"""What a process leaves to others while it goes on: one piece of work to a thread of its own, and one to another process."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait


class Aside:
    """At most one thread and one process at a time. Whoever begins them has to `settle`, however things end."""

    def __init__(self) -> None:
        self._thread: Future[None] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self, work: Callable[[], None]) -> None:
        """`work`, in a thread. The one before is finished first, and may raise."""
        self.finish()
        pool = ThreadPoolExecutor(1)
        self._thread = pool.submit(work)
        pool.shutdown(wait=False)

    def finish(self) -> None:
        """Wait for the thread. Raises what went wrong there."""
        if self._thread:
            wait([self._thread])  # known until it has ended: who is interrupted here has still to settle
            ended, self._thread = self._thread, None
            ended.result()

    @property
    def running(self) -> bool:
        """Whether the process is still at it."""
        return self._process is not None and self._process.poll() is None

    def start(self, command: Sequence[str]) -> None:
        """A process that says nothing, and that reads the end of its input when this one is gone; one that runs already is
        stopped. Raises `OSError` where there can be none."""
        self.stop()
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet)

    def ended(self) -> int | None:
        """The status that the process ended with, told once; None where there is none or it still runs."""
        status = self._process.poll() if self._process else None
        if status is not None:
            self.stop()
        return status

    def stop(self) -> None:
        """End the process."""
        stopped, self._process = self._process, None
        if stopped:
            stopped.kill()
            stopped.communicate()

    def settle(self) -> None:
        """End the process, and wait for the thread, whatever went wrong there: another error is on its way already."""
        self.stop()
        if self._thread:
            wait([self._thread])
