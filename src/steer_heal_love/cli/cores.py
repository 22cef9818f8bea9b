"""How this process waits for its own threads on a processor that it shares with other programs."""

from __future__ import annotations

import os

SPINS = "200"
"""turns that a waiting thread takes before it sleeps; GNU's OpenMP takes 300,000 by default"""


def share() -> None:
    """Let a thread that waits for another one sleep soon. What the user has set stays.

    Every matrix product ends with its threads waiting for each other. By default they spin for so long that, where another
    program wants a core, they keep the thread that they wait for from running: on two cores with one busy neighbour, a
    decoding step took four times as long (decision 77). Has to be called before torch is imported, since GNU's OpenMP reads
    the setting as it is loaded. Other implementations of OpenMP don't know it.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
