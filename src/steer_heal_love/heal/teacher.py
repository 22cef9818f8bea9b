"""The teacher that a heal's soft targets come from: the student, with its logits moved as steering moves them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from steer_heal_love.ground import team
from steer_heal_love.ground.progress import Track, silent
from steer_heal_love.ground.scoring import hidden_states, sorted_by_length
from steer_heal_love.nouns import Tokens

Steering = Callable[[float], AbstractContextManager[Any]]
"""dose → a context in which the model is steered with it"""


def teacher_states(
    model: PreTrainedModel,
    tokens: list[Tokens],
    steering: Steering,
    *,
    dose: float,
    gain: float,
    batch_tokens: int = 4096,
    track: Track = silent,
) -> list[Float[Tensor, "t d"]]:
    """The teacher's final hidden states over each answer, [t d]: the unsteered student's, moved along what steering
    does to them and its opposite undoes,

        h₀ + gain/2 · (h₊ − h₋),   h± steered at ±dose.

    Logits are linear in these states, so the difference is one of logits. What steering does in either direction,
    flattening above all, cancels in it. At dose 0 the teacher is the student.
    """
    out: list[Tensor] = [torch.empty(0)] * len(tokens)
    with team.sharing(sorted_by_length(tokens)) as mine, track("teacher", 3 * len(mine)) as advance:

        def read(steered: AbstractContextManager[Any]) -> list[Tensor]:
            with steered:
                return hidden_states(
                    model, [tokens[i] for i in mine], batch_tokens=batch_tokens, advance=advance
                )

        toward, away, plain = read(steering(dose)), read(steering(-dose)), read(nullcontext())
        for i, h, pos, neg in zip(mine, plain, toward, away, strict=True):
            out[i] = (h.float() + gain / 2 * (pos.float() - neg.float())).to(h)
    return team.filled(out, mine)
