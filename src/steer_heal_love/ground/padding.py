"""Rows of unlike length as one batch: ids filled up with zeros, and a mask of what is real."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from steer_heal_love.ground.devices import sent

Rows = list[tuple[int, ...]]
Padded = tuple[Int[Tensor, "b s"], Int[Tensor, "b s"]]


def left_pad(rows: Rows, device: torch.device | str) -> Padded:
    """Ids and mask with every row's last token in the last column."""
    return _padded(rows, device, lambda missing: missing)


def right_pad(rows: Rows, device: torch.device | str) -> Padded:
    """Ids and mask with every row's first token in the first column."""
    return _padded(rows, device, lambda _missing: 0)


def _padded(rows: Rows, device: torch.device | str, start: Callable[[int], int]) -> Padded:
    """`start`: the column of a row's first token, from how many columns it leaves empty."""
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        first = start(ids.shape[1] - len(row))
        here = slice(first, first + len(row))
        ids[i, here] = torch.tensor(row, dtype=torch.long)
        mask[i, here] = 1
    return sent(ids, device), sent(mask, device)
