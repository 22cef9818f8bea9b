"""Work that fits: a limit on a GPU's memory, and batches that are halved where they don't fit.

Nothing is estimated: a batch is tried, and halved when the device says no. What was halved is said once, as a warning.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor

from steer_heal_love.ground.devices import brought
from steer_heal_love.ground.errors import UserError


def limit(gigabytes: float, device: str) -> None:
    """Let torch allocate so much of the device's memory in this process and no more (10^9 bytes a GB); 0 means all.

    What the driver and the libraries take, about 0.7 GB, comes on top.
    """
    if device.startswith("cuda"):
        index = torch.device(device).index
        index = torch.cuda.current_device() if index is None else index
        total = torch.cuda.get_device_properties(index).total_memory
        torch.cuda.set_per_process_memory_fraction(
            min(1.0, gigabytes * 1e9 / total) if gigabytes else 1.0, index
        )
    elif gigabytes:
        raise UserError(
            f"memory: only a CUDA device can be limited, not {device!r}; lower batch_tokens instead."
        )


def free_bytes(device: torch.device) -> int:
    """What a GPU has free, with what torch holds there unused."""
    return torch.cuda.mem_get_info(device)[0] + unused_bytes(device)


def unused_bytes(device: torch.device | None = None) -> int:
    """What torch holds of a GPU, the current one if none is named, and doesn't use."""
    return torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def unclaimed_bytes() -> int:
    """What torch may still take of the current GPU, beside what it holds there, used or not."""
    free, total = torch.cuda.mem_get_info()
    left = int(torch.cuda.get_per_process_memory_fraction() * total) - torch.cuda.memory_reserved()
    return min(free, left)


def crowded() -> bool:
    """Whether torch may take less than half of some GPU that it holds memory of, beside what it holds. Asks no GPU that this
    process hasn't used: asking takes memory there."""
    if not torch.cuda.is_initialized():
        return False
    for index in range(torch.cuda.device_count()):
        if torch.cuda.memory_reserved(index):
            with torch.cuda.device(index):
                if unclaimed_bytes() < torch.cuda.mem_get_info()[1] / 2:
                    return True
    return False


def halving(batches: Iterable[list[int]], work: Callable[[list[int]], None]) -> None:
    """`work` on each batch; one that doesn't fit is halved and tried again, and no later one has more rows.

    `work` may be stopped anywhere and called again with a part of what it was given.
    """
    left, most = deque(batches), 0
    while left:
        batch = left.popleft()
        if most and len(batch) > most:
            left.extendleft([batch[most:], batch[:most]])
        elif not fits(partial(work, batch), len(batch)):
            most = len(batch) // 2
            left.appendleft(batch)


def one_ahead(
    batches: Iterable[list[int]],
    look: Callable[[list[int]], Sequence[Tensor]],
    put: Callable[[list[int], list[Tensor]], None],
) -> None:
    """`look` at each batch, halved where it doesn't fit, and `put` what it found, on the host. A batch's finds are put once the
    next batch has been looked at, so that a GPU has that to do meanwhile."""
    late: list[Callable[[], None]] = []

    def work(batch: list[int]) -> None:
        found = brought(look(batch))
        for earlier in late:
            earlier()
        late[:] = [lambda: put(batch, found())]

    halving(batches, work)
    for last in late:
        last()


def fits(work: Callable[[], None], rows: int) -> bool:
    """Whether `work` on so many rows ran; False when it ran out of memory and there are rows to do without."""
    try:
        work()
    except torch.OutOfMemoryError:
        if rows == 1:
            raise
    else:
        return True
    # Out of the handler, which holds on to the frames and tensors of what failed.
    torch.cuda.empty_cache()
    warnings.warn(f"{rows} rows don't fit in memory; going on with {rows // 2} at a time", stacklevel=3)
    return False
