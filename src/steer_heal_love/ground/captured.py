"""Passes that are differentiated, as CUDA graphs: a decoder from a layer on, and the gradient into its adapter's factors.

A training step has thousands of small kernels, and launching them one by one takes longer than running them. What has been
captured is launched as a whole. Its shapes are fixed, so texts are read side by side and filled up to one length.

Invariant: states and gradients are those of the pass uncaptured, up to the arithmetic of fused kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TypeVar
from weakref import WeakSet

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from steer_heal_love.ground import fused, partway
from steer_heal_love.ground.devices import sent
from steer_heal_love.ground.replay import graphed
from steer_heal_love.ground.side_by_side import Texts

T = TypeVar("T")
FULL = 0.3
"""share of the captured length under which a step is taken uncaptured: launching its kernels takes less than the filler"""
_warm: WeakSet[nn.Module] = WeakSet()
"""models whose passes have run once, so that libraries have made what they make on first use"""


class Captured:
    """A pass from the lowest adapted layer on, and its gradient into the factors, as two CUDA graphs of one length.

    A step of fewer tokens is filled up with texts of zeros, whose states nobody reads.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        first: int,
        factors: Sequence[Tensor],
        *,
        length: int,
        count: int,
        longest: int,
    ) -> None:
        self.length, self.count, self.longest, self.factors = length, count, longest, list(factors)
        device = model.device
        width = model.config.get_text_config(decoder=True).hidden_size
        places, ends = self.filled([])
        ids = torch.zeros(1, length, dtype=torch.long, device=device)
        self.texts = Texts(ids, places.to(device), ends.to(device), [], longest)
        self.entered = torch.zeros(1, length, width, dtype=model.dtype, device=device)
        self.upstream = torch.zeros(length, width, dtype=model.dtype, device=device)

        def forward() -> Tensor:
            return partway.states(model, first, self.entered, self.texts)[0]

        def backward() -> tuple[Tensor | None, ...]:
            return torch.autograd.grad(self.hidden, self.factors, self.upstream, allow_unused=True)

        with torch.cuda.device(device), fused.in_training():
            if model not in _warm:
                self.hidden = warmed_up(forward)
                warmed_up(backward)
                _warm.add(model)
            self.passing, self.hidden = graphed(forward)
            self.returning, self.grads = graphed(backward, self.passing.pool())

    def takes(self, given: Texts) -> bool:
        """Whether a step of these texts fits what was captured, and fills enough of it."""
        full = sum(given.lengths) >= FULL * self.length
        return full and self.holds(given.lengths) and given.longest <= self.longest

    def holds(self, lengths: list[int]) -> bool:
        """Whether so much text fits what was captured, with the filler beside it."""
        left, room = self.length - sum(lengths), (self.count - len(lengths)) * self.longest
        return 0 <= left <= room

    def __call__(self, given: Texts, entered: Float[Tensor, "1 s d"]) -> Float[Tensor, "s d"]:
        places, ends = self.filled(given.lengths)
        n = entered.shape[1]
        self.texts.ids[:, :n].copy_(given.ids)
        self.texts.places.copy_(sent(places, entered.device))
        self.texts.ends.copy_(sent(ends, entered.device))
        self.entered[:, :n].copy_(entered)
        self.entered[:, n:].zero_()
        return _Replayed.apply(self, *self.factors)[:n]  # type: ignore[no-any-return]

    def filled(self, lengths: list[int]) -> tuple[Int[Tensor, "1 l"], Int[Tensor, " n"]]:
        """Places and ends of texts, filled up to the captured length by texts no longer than the longest, and to the
        captured count by empty ones."""
        left = self.length - sum(lengths)
        while left:
            lengths = [*lengths, min(self.longest, left)]
            left -= lengths[-1]
        ends = [0, *accumulate(lengths)]
        ends += [self.length] * (self.count + 1 - len(ends))
        places = torch.cat([torch.arange(n) for n in lengths])
        return places.unsqueeze(0), torch.tensor(ends, dtype=torch.int32)


class _Replayed(torch.autograd.Function):
    """What was captured, once more. Gradients are copied out: the next replay overwrites them."""

    @staticmethod
    def forward(ctx, captured, *_factors):  # type: ignore[override]
        ctx.captured = captured
        captured.passing.replay()
        return captured.hidden.detach()

    @staticmethod
    def backward(ctx, upstream):  # type: ignore[override]
        captured = ctx.captured
        captured.upstream.copy_(upstream)
        captured.returning.replay()
        return None, *(None if g is None else g.clone() for g in captured.grads)


def warmed_up(work: Callable[[], T]) -> T:
    """Run `work` on a stream of its own, as it will be captured."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        found = work()
    torch.cuda.current_stream().wait_stream(aside)
    return found
