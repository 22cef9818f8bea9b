"""Hidden states at the assistant tag: where a persona, and what a student took from it, is read.

In: rendered prompts, layer numbers. Out: fp32 states of each prompt's last token, on the host.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from steer_heal_love.ground import models
from steer_heal_love.ground.hooks import captured
from steer_heal_love.ground.memory import halving
from steer_heal_love.ground.progress import Advance
from steer_heal_love.ground.scoring import by_length, common_start, left_pad, positions, read_once
from steer_heal_love.nouns import Tokens

States = dict[int, Float[Tensor, "n d"]]


@torch.no_grad()
def states(
    model: PreTrainedModel,
    prompts: list[tuple[int, ...]],
    at: list[int],
    batch_tokens: int,
    advance: Advance = lambda _n: None,
) -> States:
    """Each prompt's last token at the output of the decoder layers `at`."""
    out = {i: torch.empty(len(prompts), models.body(model).config.hidden_size) for i in at}

    def look(indices: list[int]) -> None:
        n = common_start([prompts[i] for i in indices])
        cache = read_once(model, prompts[indices[0]][:n], len(indices))
        ids, mask = left_pad([prompts[i][n:] for i in indices], model.device)
        mask = torch.cat([mask.new_ones(len(mask), n), mask], 1)
        read = captured(
            model, at, input_ids=ids, attention_mask=mask, position_ids=positions(mask)[:, n:], past_key_values=cache
        )  # fmt: skip
        for layer, hidden in read.items():
            out[layer][indices] = hidden.cpu()
        advance(len(indices))

    halving(by_length([Tokens(p, ()) for p in prompts], batch_tokens), look)
    return out
