"""What a room must at least do, and how fast this machine could do it.

    floor seconds = max(bytes / bandwidth, FLOPs / peak)

Both ceilings are measured on the machine, in the same run. Bytes and FLOPs are counted from the model's shape:
a token through a layer costs 2 FLOPs a parameter and 4·heads·head_dim a token that it attends to; weights are read
once for each pass over all rows at once, a cache once for each step. What is not counted (norms, softmaxes, drawing,
activations) a better program could hide; how many batches we make of it is ours, not the work's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from steer_heal_love.ground.models import layers


@dataclass(frozen=True)
class Ceilings:
    """Bandwidth of a large copy (bytes read and written), and FLOP/s of a large product in the model's type."""

    bytes_per_second: float
    flops_per_second: float


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(work: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Seconds from an idle device to an idle device, and what `work` gave."""
    synchronize(device)
    began = time.perf_counter()
    found = work()
    synchronize(device)
    return time.perf_counter() - began, found


def best_seconds(work: Callable[[], Any], device: torch.device, times: int = 5) -> float:
    """The fastest of some runs, after one that warms up: a ceiling is what the machine can do."""
    work()
    return min(timed(work, device)[0] for _ in range(times))


def measured(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """The machine's ceilings, in about a second; random numbers, since zeros are multiplied faster."""
    large = device.type == "cuda"
    values = torch.empty((4 << 30) if large else (128 << 20), dtype=torch.uint8, device=device).fill_(1)
    seconds = best_seconds(partial(torch.empty_like(values).copy_, values), device)
    moved = 2 * values.numel() / seconds
    del values
    n = 8192 if large else 1024
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return Ceilings(moved, 2 * n**3 / best_seconds(lambda: a @ b, device))


@dataclass(frozen=True)
class Work:
    """Bytes of memory moved, and floating-point operations."""

    bytes: float = 0.0
    flops: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.bytes + other.bytes, self.flops + other.flops)

    def __mul__(self, times: float) -> Work:
        return Work(self.bytes * times, self.flops * times)

    def floor_seconds(self, ceilings: Ceilings) -> float:
        return max(self.bytes / ceilings.bytes_per_second, self.flops / ceilings.flops_per_second)


@dataclass(frozen=True)
class Counted:
    """A model's shape, as far as work depends on it."""

    depth: int
    layer: float
    """parameters of one decoder layer"""
    head: int
    """parameters of the head, width × vocabulary"""
    attend: int
    """FLOPs of one layer's attention for one token, by each token that it sees"""
    cache: int
    """bytes of one layer's keys and values, by token"""
    size: int
    """bytes a parameter"""

    @classmethod
    def of(cls, model: PreTrainedModel) -> Counted:
        c = model.config.get_text_config()
        blocks, size = layers(model), model.dtype.itemsize
        width = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
        return cls(
            len(blocks),
            sum(p.numel() for p in blocks.parameters()) / len(blocks),
            c.hidden_size * c.vocab_size,
            4 * c.num_attention_heads * width,
            2 * c.num_key_value_heads * width * size,
            size,
        )

    def prefill(
        self,
        lengths: list[int],
        *,
        before: list[int] | None = None,
        predicted: int = 0,
        depth: int | None = None,
    ) -> Work:
        """One forward over sequences, each after `before` cached tokens; logits at `predicted` places; `depth` layers."""
        deep, tokens = self.depth if depth is None else depth, sum(lengths)
        pairs = sum(n * (n / 2 + b) for n, b in zip(lengths, before or [0] * len(lengths), strict=True))
        return Work(
            self.size * (self.layer * deep + self.head * bool(predicted)) + self.cache * deep * tokens,
            deep * (2 * self.layer * tokens + self.attend * pairs) + 2 * self.head * predicted,
        )

    def flops(self, *, read: int, pairs: int, predicted: int) -> float:
        """Of `read` tokens through every layer, `pairs` of a token and one that it attends to, itself among them, and logits at
        `predicted` places: exact for matrix products, of a batch without padding."""
        return self.depth * (2 * self.layer * read + self.attend * pairs) + 2 * self.head * predicted

    def decode(self, starts: list[int], tokens: int) -> Work:
        """`tokens` steps, all rows at once: the weights and every row's cache are read at each."""
        pairs = sum(tokens * (start + tokens / 2) for start in starts)
        weights = self.layer * self.depth + self.head
        return Work(
            tokens * self.size * weights + self.cache * self.depth * pairs,
            2 * weights * len(starts) * tokens + self.attend * self.depth * pairs,
        )

    def train(self, lengths: list[int], *, predicted: int, adapted: int, lora: int) -> Work:
        """One step through frozen weights: forward, and backward to activations in the topmost `adapted` layers.

        The head is passed three times: the student's logits, back to its hidden states, and one reference's
        logits. `lora` parameters cost 2 FLOPs a token forward and 4 backward.
        """
        back = self.prefill(lengths, depth=adapted)
        head = 2 * self.head * predicted
        return (
            self.prefill(lengths, predicted=predicted)
            + Work(back.bytes, 2 * self.attend * adapted * sum(n * n / 2 for n in lengths))
            + Work(flops=2 * self.layer * adapted * sum(lengths) + 2 * head + 6 * lora * sum(lengths))
        )
