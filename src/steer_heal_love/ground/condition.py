"""Conditional steering: a row is steered only where its prompt meets a condition, and otherwise is the unsteered model's.

    a row's dose is  dose · [ cos(h − m, c) > θ ],   h its prompt's state at the assistant tag, unsteered, at one layer

In: prompts' token ids and a dose each. Out: the same doses, 0 where the condition is not met. The decision is made once, from
the prompt alone, and holds for the whole answer. So it doesn't depend on the batch, on padding or on a cache, and every
operation and every way of adapting the dose can be had under a condition. `vector.conditional` reads c, m and θ. A condition
that holds `below` its threshold is met by exactly the other prompts.

Identity: a threshold of 1 never steers; one below −1 always does (the reverse `below`). It does not fold into weights.
Source: conditional activation steering (CAST), arXiv 2409.05907, which compares h with its projection on c while the prompt
is read; here the prompt is read once more, beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.operations import Folding
from steer_heal_love.ground.parts import layers
from steer_heal_love.ground.places import width
from steer_heal_love.ground.states import states


@dataclass(frozen=True)
class Condition:
    """Where to steer: the direction c that a prompt's state must point along, from the mean m of states, at one layer
    (from 0), by a cosine above the threshold; or, `below`, not above it."""

    layer: int
    direction: Float[Tensor, " d"]
    mean: Float[Tensor, " d"]
    threshold: float
    below: bool = False

    folding: ClassVar[Folding] = Folding(
        exact=False,
        why="whether anything is added depends on the prompt, and weights are the same for every prompt",
    )

    def cosines(
        self, model: PreTrainedModel, prompts: list[tuple[int, ...]], batch_tokens: int = 4096
    ) -> list[float]:
        """cos(h − m, c) of each prompt. The model must not be steered meanwhile."""
        if not prompts:
            return []
        found = states(model, prompts, [self.layer], batch_tokens)[self.layer]
        return torch.cosine_similarity(found - self.mean, self.direction[None], dim=1).tolist()

    def doses(
        self, model: PreTrainedModel, prompts: list[tuple[int, ...]], doses: list[float]
    ) -> list[float]:
        """The doses, 0 for prompts that don't meet the condition. A prompt that comes again is read once."""
        different = list(dict.fromkeys(prompts))
        met = dict(zip(different, self.meets(self.cosines(model, different)), strict=True))
        return [d if met[p] else 0.0 for p, d in zip(prompts, doses, strict=True)]

    def meets(self, cosines: Sequence[float]) -> list[bool]:
        """Whether prompts of these cosines are steered."""
        return [(x > self.threshold) != self.below for x in cosines]

    def fits(self, model: PreTrainedModel, name: str) -> None:
        """Raise `UserError` where the model has no such layer, or states of another width; `name` is what the condition is
        called."""
        depth, d = len(layers(model)), width(model, 0, "")
        wrong = []
        if not 0 <= self.layer < depth:
            wrong.append(f"it is read at layer {self.layer}, and the model has layers 0 to {depth - 1}")
        if len(self.direction) != d:
            wrong.append(f"its direction has {len(self.direction)} values, and the model's states have {d}")
        if wrong:
            raise UserError(
                f"{name}: {'; '.join(wrong)}. Make one for this model with `shl vector condition --model`."
            )
