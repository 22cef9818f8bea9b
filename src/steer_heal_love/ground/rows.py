"""Prompts and answers read in rows that several prompts share (`layout`), after a start that all have in common.

In: a model, what all prompts begin with, what is each prompt's own, its answers. Out: the final hidden states that the
answers' tokens are predicted from.
Invariant: they are those of each sequence read alone.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from steer_heal_love.ground.devices import sent
from steer_heal_love.ground.layout import Layout, Tree, lay
from steer_heal_love.ground.reading import blank, forward, select, way
from steer_heal_love.nouns import Tokens


def read_once(model: PreTrainedModel, start: tuple[int, ...], rows: int) -> DynamicCache:
    """The cache of tokens that all rows begin with."""
    if not start:
        return blank(model)  # type: ignore[return-value]
    _, cache = forward(model, sent(torch.tensor([start]), model.device))
    select(cache, torch.zeros(rows, dtype=torch.long, device=model.device))
    return cache  # type: ignore[no-any-return]


def read_in_rows(model: PreTrainedModel, sequences: list[Tokens], n: int) -> Float[Tensor, "t d"]:
    """Hidden states over the answers, sequence by sequence. All prompts begin with the same `n` tokens; those that are
    alike to their end are read once."""
    answers: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    which = []
    for s in sequences:
        given = answers.setdefault(s.prompt[n:], [])
        which.append((s.prompt[n:], len(given)))
        given.append(s.answer)
    trees = {prompt: Tree.of(given) for prompt, given in answers.items()}
    states = read_laid(model, sequences[0].prompt[:n], [*trees], [*trees.values()])
    found = dict(zip(trees, states, strict=True))
    return torch.cat([found[prompt][trees[prompt].paths[k]] for prompt, k in which])


@torch.no_grad()
def read_laid(
    model: PreTrainedModel, start: tuple[int, ...], prompts: list[tuple[int, ...]], trees: list[Tree]
) -> list[Float[Tensor, "_ d"]]:
    """For each tree of answers the states that its nodes are predicted from. All prompts go on from `start`."""
    laid = laid_out(model, start, prompts, trees)
    hidden, _ = forward(model, laid.ids, laid.mask, laid.places, read_once(model, start, len(laid.ids)))
    flat = hidden.flatten(0, 1)
    return [flat[where] for where in laid.where]


def laid_out(
    model: PreTrainedModel, start: tuple[int, ...], prompts: list[tuple[int, ...]], trees: list[Tree]
) -> Layout:
    """The batch on the model's device. On a processor, which pays for padding by the token, prompts share rows; elsewhere
    each has one, as the kernels there like it."""
    most = way(model).inside - len(start) if model.device.type == "cpu" else 0
    return lay(prompts, trees, model.dtype, before=len(start), most=most).to(model.device)
