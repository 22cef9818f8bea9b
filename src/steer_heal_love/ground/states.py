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
from steer_heal_love.ground.layout import Tree
from steer_heal_love.ground.memory import one_ahead
from steer_heal_love.ground.padding import right_pad
from steer_heal_love.ground.progress import Advance
from steer_heal_love.ground.reading import arguments, positions, way
from steer_heal_love.ground.rows import laid_out, read_once
from steer_heal_love.ground.scoring import (
    by_length,
    sorted_by_length,
    worth_sharing,
)
from steer_heal_love.nouns import Tokens

States = dict[int, Float[Tensor, "n d"]]
ENDS = (0,)
"""an answer of one token, which isn't read: it is predicted from a prompt's last"""


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

    def look(indices: list[int]) -> list[Tensor]:
        found = last_states(model, [prompts[i] for i in indices], at, hook)
        return [found[layer] for layer in out]

    def put(indices: list[int], found: list[Tensor]) -> None:
        for each, hidden in zip(out.values(), found, strict=True):
            each[indices] = hidden
        advance(len(indices))

    room = batch_tokens if max(map(len, prompts), default=0) <= way(model).beside else 0
    rows = [Tokens(p, ()) for p in prompts]
    with team.sharing(sorted_by_length(rows)) as mine:
        one_ahead(by_length(rows, room, mine), look, put)
        advance(len(prompts) - len(mine))
    return {
        i: torch.stack(team.filled(list(hidden), mine)) if len(hidden) else hidden
        for i, hidden in out.items()
    }


def last_states(
    model: PreTrainedModel, prompts: list[tuple[int, ...]], at: list[int], hook: str = ""
) -> States:
    """One batch's; what all begin with is read once, and prompts share rows, where the model's way allows it."""
    if max(map(len, prompts)) <= way(model).inside:
        n = worth_sharing(model, prompts)
        laid = laid_out(model, prompts[0][:n], [p[n:] for p in prompts], [Tree.of([ENDS])] * len(prompts))
        cache = read_once(model, prompts[0][:n], len(laid.ids))
        inputs = arguments(model, laid.ids, laid.mask, laid.places, cache)
        return captured(
            model, at, where=torch.cat(laid.where), at=hook, use_cache=cache is not None, **inputs
        )
    ids, mask = right_pad(prompts, model.device)
    inputs = arguments(model, ids, mask, positions(mask))
    ends = torch.arange(len(ids), device=ids.device) * ids.shape[1] + mask.sum(1) - 1
    return captured(model, at, where=ends, at=hook, use_cache=False, **inputs)
