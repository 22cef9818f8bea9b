"""Several answers to one prompt, read as branches of one tree: what they begin alike is read once.

In: prompts, and the candidate answers of each. Out: the mean NLL per token of every answer, in nats.
Invariant: an answer's value is what it has when it is read by itself.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from steer_heal_love.ground import team
from steer_heal_love.ground.devices import sent
from steer_heal_love.ground.layout import Tree
from steer_heal_love.ground.memory import one_ahead
from steer_heal_love.ground.reading import way
from steer_heal_love.ground.rows import read_laid
from steer_heal_love.ground.scoring import (
    by_length,
    log_likelihood,
    size,
    sorted_by_length,
    token_nll,
    worth_sharing,
)
from steer_heal_love.nouns import Tokens


@torch.no_grad()
def branch_nll(
    model: PreTrainedModel,
    prompts: list[tuple[int, ...]],
    answers: list[list[tuple[int, ...]]],
    *,
    batch_tokens: int = 4096,
) -> list[list[float]]:
    """Mean NLL per token of several answers to each prompt; what they have in common is read once.

    `answers[i]` are the candidates for `prompts[i]`. Where a mask can't keep branches apart, each is read by itself.
    """
    out: list[list[float]] = [[] for _ in prompts]
    grown = {key: Tree.of(list(key)) for key in dict.fromkeys(map(tuple, answers))}
    trees = [grown[tuple(a)] for a in answers]
    stems = [Tokens(p, tuple(t.inner())) for p, t in zip(prompts, trees, strict=True)]
    wide = [size(s) > way(model).inside for s in stems]

    def look(indices: list[int]) -> list[Tensor]:
        chosen = [trees[i] for i in indices]
        n = worth_sharing(model, [prompts[i] for i in indices])
        found = read_laid(model, prompts[indices[0]][:n], [prompts[i][n:] for i in indices], chosen)
        hidden = torch.cat(found)
        targets = sent(torch.tensor([token for t in chosen for token in t.ids]), model.device)
        return list((-log_likelihood(model, hidden, targets)).split([len(t.ids) for t in chosen]))

    def put(indices: list[int], found: list[Tensor]) -> None:
        for i, nll in zip(indices, found, strict=True):
            out[i] = trees[i].means(nll)

    narrow = [i for i in range(len(stems)) if not wide[i]]
    few = [stems[i] for i in narrow]
    with team.sharing(sorted_by_length(few)) as mine:
        one_ahead(([narrow[i] for i in batch] for batch in by_length(few, batch_tokens, mine)), look, put)
    whole = team.filled([torch.tensor(v, dtype=torch.float64) for v in out], [narrow[i] for i in mine])
    out = [v.tolist() for v in whole]
    rows = [Tokens(prompts[i], a) for i in range(len(stems)) if wide[i] for a in answers[i]]
    apart = iter(token_nll(model, rows, batch_tokens=batch_tokens))
    for i in range(len(stems)):
        if wide[i]:
            out[i] = [next(apart).mean().item() for _ in answers[i]]
    return out
