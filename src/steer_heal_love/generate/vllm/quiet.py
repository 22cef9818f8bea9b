"""What vLLM is told by the environment before it is imported; what the user has set there stays.

It reports its use to its makers unless told not to. Its attention in fp32 is a Triton kernel, whose products have ten bits
unless Triton is told to take all 24, and then tokens differ from the reference's. On a CPU vLLM runs in this process and
leaves the threads where they are.
"""

from __future__ import annotations

import os

EVERYWHERE = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TRITON_F32_DEFAULT": "ieee",
}
ON_A_CPU = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


def settle() -> None:
    """Set what isn't set."""
    for name, value in EVERYWHERE.items():
        os.environ.setdefault(name, value)


def settle_cpu() -> None:
    """Set what isn't set and holds for a CPU alone; vLLM reads it when an engine starts."""
    for name, value in ON_A_CPU.items():
        os.environ.setdefault(name, value)
