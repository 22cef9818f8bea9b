"""One step's loss: the terms of kept completions and anchor answers, and their gradient into the factors."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from steer_heal_love.config import HealConfig
from steer_heal_love.ground.scoring import answer_hidden, forward_kl, pack
from steer_heal_love.heal import divergences
from steer_heal_love.heal.examples import Example, alike, tokens
from steer_heal_love.heal.loss import hinge, token_terms


def backward(
    model: PreTrainedModel,
    kept: list[Example],
    anchor: list[Example],
    config: HealConfig,
    weights: dict[str, float],
) -> dict[str, float]:
    """Add one step's gradient to the factors', at most `micro_batch` completions and as many anchors at a time; the
    terms' means over the step."""
    means: dict[str, float] = {}
    n = math.ceil(max(len(kept), len(anchor)) / config.micro_batch)
    for part, extra in ((kept[i::n], anchor[i::n]) for i in range(n)):
        terms, _ = losses(model, part, extra, config)
        shares = {
            "nll": tokens(part) / tokens(kept), "soft": tokens(part) / tokens(kept),
            "barrier": len(part) / len(kept), "anchor": tokens(extra) / max(1, tokens(anchor)),
        }  # fmt: skip
        loss = sum(weights[name] * shares[name] * t for name, t in terms.items() if weights[name])
        if isinstance(loss, Tensor):
            loss.backward()
        for name, t in terms.items():
            means[name] = means.get(name, 0.0) + shares[name] * t.item()
    return means


def losses(
    model: PreTrainedModel, kept: list[Example], anchor: list[Example], config: HealConfig
) -> tuple[dict[str, Float[Tensor, ""]], Float[Tensor, "t d"]]:
    """The unweighted terms, and the hidden states they were read from."""
    batches = [pack([e.tokens for e in part], model.device) for part in alike(kept, anchor)]
    hidden = torch.cat([answer_hidden(model, b) for b in batches])
    n, terms, references = tokens(kept), {}, {}
    if kept:
        if config.lam:
            theirs = stack([e.reference for e in kept], hidden)
            references["barrier"] = theirs, divergences[config.divergence]
        if config.soft:
            theirs = stack([e.teacher for e in kept if e.teacher is not None], hidden)
            references["soft"] = theirs, forward_kl
        nll, *found = token_terms(model, hidden[:n], batches[0].targets[:n], *references.values())
        each = dict(zip(references, found, strict=True))
        weight = [nll.new_full((len(e.tokens.answer),), e.weight) for e in kept]
        terms["nll"] = (nll * torch.cat(weight)).mean()
        if "barrier" in each:
            lengths = [len(e.tokens.answer) for e in kept]
            terms["barrier"] = hinge(each["barrier"], lengths, config.aggregate, config.tau)
        if "soft" in each:
            terms["soft"] = each["soft"].mean()
    if anchor:
        reference = stack([e.reference for e in anchor], hidden)
        cooled = lambda base, ours: forward_kl(base / config.anchor_temperature, ours)
        _, kl = token_terms(model, hidden[n:], None, (reference, cooled))
        terms["anchor"] = kl.mean()
    return terms, hidden


def stack(states: list[Tensor], like: Tensor) -> Float[Tensor, "t d"]:
    return torch.cat(states).to(like.device, like.dtype)
