"""The model in training, read over examples' answers again and again: what is the same each time is done once.

Texts are read side by side in one row, without padding, where the model allows it (`ground.side_by_side`). The layers
below the adapter give the same states in every epoch, so each text passes them once (`ground.partway`). On a GPU, what
is left is captured as a pair of CUDA graphs, one for the pass and one for its gradient: a step has thousands of small
kernels, and launching them one by one takes longer than running them.

Invariant: hidden states and gradients are those of padded rows read whole, up to the order of sums.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from steer_heal_love.ground import partway, side_by_side
from steer_heal_love.ground.captured import Captured
from steer_heal_love.ground.scoring import answer_hidden, at_a_time, by_length, pack, size
from steer_heal_love.ground.side_by_side import Texts
from steer_heal_love.heal.examples import Example, alike
from steer_heal_love.nouns import Tokens

SPARE = 8
"""texts for which a captured step has room beside its own: the filler that brings a row to the captured length"""


class Student:
    """Reads a model, adapter on, over examples. `first`: the lowest adapted layer; 0 where everything is read each time."""

    def __init__(
        self, model: PreTrainedModel, first: int = 0, factors: Sequence[Tensor] = (), *, within: bool = True
    ) -> None:
        self.model, self.first, self.factors, self.within = model, first, list(factors), within
        self.below: dict[Tokens, Tensor] = {}
        self.captured: Captured | None = None

    def answers(self, kept: list[Example], anchor: list[Example]) -> Float[Tensor, "t d"]:
        """Final hidden states from which each answer token is predicted: of the kept texts, then of the anchors."""
        rows = [e.tokens for e in kept + anchor]
        if not self.packs(rows):
            batches = [pack([e.tokens for e in part], self.model.device) for part in alike(kept, anchor)]
            return torch.cat([answer_hidden(self.model, b) for b in batches])
        given, at = side_by_side.answered(rows, self.model.device)
        return self.states(given, rows)[at]

    def packs(self, rows: list[Tokens]) -> bool:
        """Whether these texts may be read side by side."""
        return self.within and side_by_side.suits(self.model, max(map(size, rows)))

    def states(self, given: Texts, rows: list[Tokens]) -> Float[Tensor, "s d"]:
        """Final hidden states of all tokens."""
        if not (self.first and partway.suits(self.model, self.first)):
            return side_by_side.states(self.model, given)[0]
        entered = self.entered(given, rows)
        if self.captured and self.captured.takes(given):
            return self.captured(given, entered)
        return partway.states(self.model, self.first, entered, given)[0]

    def entered(self, given: Texts, rows: list[Tokens]) -> Float[Tensor, "1 s d"]:
        """What enters the lowest adapted layer; only texts that were not met before are read."""
        new = [t for t in dict.fromkeys(rows) if t not in self.below]
        if new:
            fresh = side_by_side.texts([t.prompt + t.answer for t in new], self.model.device)
            found = partway.entering(self.model, self.first, fresh)[0].split(fresh.lengths)
            self.below |= {t: h.clone() for t, h in zip(new, found, strict=True)}
        return torch.cat([self.below[t] for t in rows]).unsqueeze(0)

    def batches(self, rows: list[Tokens], batch_tokens: int, mine: list[int]) -> Iterator[list[int]]:
        """Indices of these rows, of those in `mine`, which come sorted by length, in batches of at most `batch_tokens` after
        padding; where a step is captured, in batches that it takes."""
        if (step := self.captured) is None:
            return by_length(rows, batch_tokens, mine)
        return at_a_time(mine, lambda batch: step.holds([size(rows[i]) for i in batch]))

    def capture(self, kept: list[Example], anchor: list[Example], sizes: tuple[int, int]) -> None:
        """Capture a step of so many of these kept texts and of these anchors, where there is a GPU that can.

        Raises `torch.OutOfMemoryError` where such a step doesn't fit.
        """
        self.captured = None
        rows = [e.tokens for e in kept + anchor]
        if self.model.device.type != "cuda" or not self.factors or not self.packs(rows):
            return
        if self.first and partway.suits(self.model, self.first):
            parts = zip((kept, anchor), sizes, strict=True)
            length = sum(typical([size(e.tokens) for e in part], n) for part, n in parts)
            try:
                self.captured = Captured(
                    self.model,
                    self.first,
                    self.factors,
                    length=length,
                    count=sum(sizes) + SPARE,
                    longest=max(map(size, rows)),
                )
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                warnings.warn(f"training without CUDA graphs: {str(error).splitlines()[0]}", stacklevel=2)


def typical(sizes: list[int], n: int) -> int:
    """Tokens that `n` texts drawn from these have together, or fewer, 19 times of 20."""
    if not sizes or not n:
        return 0
    return min(
        math.ceil(n * statistics.fmean(sizes) + 1.7 * math.sqrt(n) * statistics.pstdev(sizes)), n * max(sizes)
    )
