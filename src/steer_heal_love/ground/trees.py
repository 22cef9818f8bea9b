"""Several answers to one prompt, read as branches of one tree: what they begin alike is read once.

In: prompts, and the candidate answers of each. Out: the mean NLL per token of every answer, in nats.
Invariant: an answer's value is what it has when it is read by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from steer_heal_love.ground import team
from steer_heal_love.ground.memory import halving
from steer_heal_love.ground.reading import read, way
from steer_heal_love.ground.scoring import (
    by_length,
    common_start,
    log_likelihood,
    read_once,
    sorted_by_length,
    token_nll,
)
from steer_heal_love.nouns import Tokens


@dataclass(frozen=True)
class Tree:
    """Several answers with what they begin alike stored once. `parents` point at earlier nodes, −1 at the prompt."""

    ids: list[int]
    parents: list[int]
    paths: list[list[int]]

    @classmethod
    def of(cls, answers: list[tuple[int, ...]]) -> Tree:
        known: dict[tuple[int, int], int] = {}
        paths = []
        for answer in answers:
            path, at = [], -1
            for token in answer:
                at = known.setdefault((at, token), len(known))
                path.append(at)
            paths.append(path)
        return cls([token for _, token in known], [parent for parent, _ in known], paths)

    def inner(self) -> list[int]:
        """Nodes that something follows: the only ones a model has to read."""
        return sorted(set(self.parents) - {-1})


def pack_trees(
    prompts: list[tuple[int, ...]], trees: list[Tree], dtype: torch.dtype
) -> tuple[Int[Tensor, "b s"], Int[Tensor, "b s"], Float[Tensor, "b 1 s s"], list[Int[Tensor, " _"]]]:
    """Ids, positions and an additive mask by which a node sees the prompt and its own ancestors alone, and for
    each tree the place, in the flattened batch, that each of its nodes is predicted from."""
    width = max(len(p) + len(t.inner()) for p, t in zip(prompts, trees, strict=True))
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    places = np.zeros(ids.shape, np.int64)
    sees: np.ndarray = np.zeros((len(prompts), width, width), bool)
    where = []
    for row, (prompt, tree) in enumerate(zip(prompts, trees, strict=True)):
        start, inner = len(prompt), tree.inner()
        column = {-1: start - 1} | {node: start + i for i, node in enumerate(inner)}
        ids[row, : start + len(inner)] = torch.tensor([*prompt, *(tree.ids[n] for n in inner)])
        places[row, :start] = np.arange(start)
        sees[row, :start, :start] = np.tri(start, dtype=bool)
        for node in inner:
            at, above = column[node], column[tree.parents[node]]
            sees[row, at] = sees[row, above]
            sees[row, at, at] = True
            places[row, at] = places[row, above] + 1
        where.append(torch.tensor([column[p] for p in tree.parents]) + row * width)
    mask = torch.zeros(sees.shape, dtype=dtype).masked_fill(torch.from_numpy(~sees), torch.finfo(dtype).min)
    return ids, torch.from_numpy(places), mask.unsqueeze(1), where


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
    trees = [Tree.of(a) for a in answers]
    stems = [Tokens(p, tuple(t.inner())) for p, t in zip(prompts, trees, strict=True)]
    wide = [len(s.prompt) + len(s.answer) > way(model).inside for s in stems]

    def read_trees(indices: list[int]) -> None:
        chosen = [trees[i] for i in indices]
        n = common_start([prompts[i] for i in indices])
        cache = read_once(model, prompts[indices[0]][:n], len(indices))
        ids, places, mask, where = pack_trees([prompts[i][n:] for i in indices], chosen, model.dtype)
        mask = torch.cat([mask.new_zeros(*mask.shape[:3], n), mask], 3)
        hidden, _ = read(
            model, ids.to(model.device), mask.to(model.device), (places + n).to(model.device), cache
        )
        hidden = hidden.flatten(0, 1)[torch.cat(where).to(model.device)]
        targets = torch.tensor([token for t in chosen for token in t.ids], device=model.device)
        nll = -log_likelihood(model, hidden, targets)
        for i, tree, part in zip(indices, chosen, nll.split([len(t.ids) for t in chosen]), strict=True):
            out[i] = [part[path].mean().item() for path in tree.paths]

    narrow = [i for i in range(len(stems)) if not wide[i]]
    few = [stems[i] for i in narrow]
    with team.sharing(sorted_by_length(few)) as mine:
        halving(([narrow[i] for i in batch] for batch in by_length(few, batch_tokens, mine)), read_trees)
    whole = team.filled([torch.tensor(v, dtype=torch.float64) for v in out], [narrow[i] for i in mine])
    out = [v.tolist() for v in whole]
    rows = [Tokens(prompts[i], a) for i in range(len(stems)) if wide[i] for a in answers[i]]
    apart = iter(token_nll(model, rows, batch_tokens=batch_tokens))
    for i in range(len(stems)):
        if wide[i]:
            out[i] = [next(apart).mean().item() for _ in answers[i]]
    return out
