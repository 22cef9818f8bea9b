"""Hidden states at the assistant tag: where a persona, and what a student took from it, is read.

In: rendered prompts, layer numbers. Out: fp32 states of each prompt's last token, on the host.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from steer_heal_love.ground import places, team
from steer_heal_love.ground.hooks import captured
from steer_heal_love.ground.memory import halving
from steer_heal_love.ground.progress import Advance
from steer_heal_love.ground.reading import arguments, positions, way
from steer_heal_love.ground.scoring import by_length, common_start, read_once, right_pad, sorted_by_length
from steer_heal_love.nouns import Tokens

States = dict[int, Float[Tensor, "n d"]]


@torch.no_grad()
def states(
    model: PreTrainedModel,
    prompts: list[tuple[int, ...]],
    at: list[int],
    batch_tokens: int,
    advance: Advance = lambda _n: None,
    hook: str = "",
) -> States:
    """Each prompt's last token at the output of the decoder layers `at`, or of the linear module `hook` in each."""
    out = {i: torch.empty(len(prompts), places.width(model, i, hook)) for i in at}

    def look(indices: list[int]) -> None:
        for layer, hidden in last_states(model, [prompts[i] for i in indices], at, hook).items():
            out[layer][indices] = hidden.cpu()
        advance(len(indices))

    room = batch_tokens if max(map(len, prompts), default=0) <= way(model).beside else 0
    rows = [Tokens(p, ()) for p in prompts]
    with team.sharing(sorted_by_length(rows)) as mine:
        halving(by_length(rows, room, mine), look)
        advance(len(prompts) - len(mine))
    return {
        i: torch.stack(team.filled(list(hidden), mine)) if len(hidden) else hidden
        for i, hidden in out.items()
    }


def last_states(
    model: PreTrainedModel, prompts: list[tuple[int, ...]], at: list[int], hook: str = ""
) -> States:
    """One batch's; what all begin with is read once where the model's way allows it."""
    n = common_start(prompts) if max(map(len, prompts)) <= way(model).inside else 0
    cache = read_once(model, prompts[0][:n], len(prompts)) if n else None
    ids, mask = right_pad([p[n:] for p in prompts], model.device)
    whole = torch.cat([mask.new_ones(len(mask), n), mask], 1)
    inputs = arguments(model, ids, whole, positions(whole)[:, n:], cache)
    return captured(model, at, last=mask.sum(1) - 1, at=hook, use_cache=cache is not None, **inputs)
