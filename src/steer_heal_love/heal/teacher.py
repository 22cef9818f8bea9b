"""The teacher that a heal's soft targets come from: the student, with its logits moved as steering moves them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from steer_heal_love.ground import partway, side_by_side, team
from steer_heal_love.ground.memory import one_ahead
from steer_heal_love.ground.progress import Track, silent
from steer_heal_love.ground.scoring import by_length, read_hidden, size, sorted_by_length
from steer_heal_love.nouns import Tokens

Steering = Callable[[float], AbstractContextManager[Any]]
"""dose → a context in which the model is steered with it"""


@torch.no_grad()
def teacher_states(
    model: PreTrainedModel,
    tokens: list[Tokens],
    steering: Steering,
    *,
    dose: float,
    gain: float,
    first: int = 0,
    batch_tokens: int = 4096,
    track: Track = silent,
) -> list[Float[Tensor, "t d"]]:
    """The teacher's final hidden states over each answer, [t d]: the unsteered student's, moved along what steering
    does to them and its opposite undoes,

        h₀ + gain/2 · (h₊ − h₋),   h± steered at ±dose.

    Logits are linear in these states, so the difference is one of logits. What steering does in either direction,
    flattening above all, cancels in it. At dose 0 the teacher is the student. `first`: the lowest steered layer; what lies
    below it is read once.
    """
    out: list[Tensor] = [torch.empty(0)] * len(tokens)
    with team.sharing(sorted_by_length(tokens)) as mine, track("teacher", 3 * len(mine)) as advance:

        def look(indices: list[int]) -> list[Tensor]:
            rows = [tokens[i] for i in indices]
            states = reader(model, rows, first)
            plain = states()
            advance(len(rows))
            with steering(dose):
                toward = states().float()
            advance(len(rows))
            with steering(-dose):
                away = states().float()
            advance(len(rows))
            moved = (plain.float() + gain / 2 * (toward - away)).to(plain)
            return list(moved.split([len(t.answer) for t in rows]))

        def put(indices: list[int], found: list[Tensor]) -> None:
            for i, h in zip(indices, found, strict=True):
                out[i] = h

        one_ahead(by_length(tokens, batch_tokens, mine), look, put)
    return team.filled(out, mine)


def reader(model: PreTrainedModel, rows: list[Tokens], first: int) -> Callable[[], Float[Tensor, "t d"]]:
    """Reads the answers' final hidden states, as often as it is called; from layer `first` on where the model allows it."""
    longest = max(map(size, rows))
    if not (first and side_by_side.suits(model, longest) and partway.suits(model, first)):
        return lambda: read_hidden(model, rows)[0]
    given, at = side_by_side.answered(rows, model.device)
    entered = partway.entering(model, first, given)
    return lambda: partway.states(model, first, entered, given)[0][at]
