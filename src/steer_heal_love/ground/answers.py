"""Hidden states of answers: the mean over an answer's own tokens at the output of one decoder layer.

In: sequences (prompt ids, answer ids), a layer number. Out: fp32 means on the host, a row each.
Invariant: a row doesn't depend on the batch it was read in.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from steer_heal_love.ground import team
from steer_heal_love.ground.hooks import once
from steer_heal_love.ground.memory import one_ahead
from steer_heal_love.ground.parts import layers, stream
from steer_heal_love.ground.reading import way
from steer_heal_love.ground.scoring import by_length, pack, sorted_by_length, whole_hidden
from steer_heal_love.nouns import Tokens


@torch.no_grad()
def answer_means(
    model: PreTrainedModel, sequences: list[Tokens], at: int, *, batch_tokens: int = 4096
) -> Float[Tensor, "n d"]:
    """Each answer's mean state at layer `at`."""
    out: list[Tensor] = [torch.empty(0)] * len(sequences)

    def look(indices: list[int]) -> list[Tensor]:
        part = [sequences[i] for i in indices]
        each = zip(part, layer_states(model, part, at), strict=True)
        return [states[len(s.prompt) : len(s.prompt) + len(s.answer)].mean(0) for s, states in each]

    def put(indices: list[int], found: list[Tensor]) -> None:
        for i, mean in zip(indices, found, strict=True):
            out[i] = mean

    with team.sharing(sorted_by_length(sequences)) as mine:
        one_ahead(by_length(sequences, batch_tokens, mine), look, put)
    return torch.stack(team.filled(out, mine))


def layer_states(model: PreTrainedModel, sequences: list[Tokens], at: int) -> list[Float[Tensor, "_ d"]]:
    """The layer's fp32 output over each sequence, padding after it included."""
    batch, seen = pack(sequences, model.device), []
    way(model)  # found out by reading, where nobody listens yet

    def hook(_module: Any, _args: Any, output: Any) -> None:
        seen.extend(stream(model, output).float())

    with once(model, "read"):
        handle = layers(model)[at].register_forward_hook(hook)
        try:
            whole_hidden(model, batch.ids, batch.mask)
        finally:
            handle.remove()
    return seen
