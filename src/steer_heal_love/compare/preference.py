"""Direct preference optimisation on given pairs of answers.

    L = −log σ(β·[(log π(y⁺) − log π₀(y⁺)) − (log π(y⁻) − log π₀(y⁻))]) + nll · mean_t −log π(y⁺_t)

with log π(y) the sum over an answer's tokens and π₀ the base. Source: arXiv 2305.18290, equation 7; the second term
(0 there) is that of arXiv 2404.19733.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import PreTrainedModel

from steer_heal_love.compare.bench import Bench
from steer_heal_love.compare.own_steps import batches, own_steps, token_nlls
from steer_heal_love.ground import purposes
from steer_heal_love.ground.scoring import token_nll
from steer_heal_love.nouns import Adapter, Tokens

BETA = 0.1
"""how hard the student is held to the base, in the paper's experiments"""


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, the preferred one first, and log p of each under the base in nats."""

    chosen: Tokens
    rejected: Tokens
    base_chosen: float
    base_rejected: float


def paired(bench: Bench, chosen: list[Tokens], rejected: list[Tokens]) -> list[Pair]:
    """Pairs with the base's own log-likelihoods; those of twice the same answer are left out, which prefer nothing."""
    both = [(c, r) for c, r in zip(chosen, rejected, strict=True) if c.answer != r.answer]
    size = bench.run.config.batch_tokens
    likelihoods = lambda side: [-float(x.sum()) for x in token_nll(bench.run.model, side, batch_tokens=size)]
    good, bad = likelihoods([c for c, _ in both]), likelihoods([r for _, r in both])
    return [Pair(c, r, p, q) for (c, r), p, q in zip(both, good, bad, strict=True)]


def preferred(bench: Bench, name: str, pairs: list[Pair], *, epochs: int, nll: float = 0.0) -> Adapter:
    """An adapter trained on `pairs` by the loss above, with `nll` the weight of its second term."""
    r = bench.run
    order = batches(pairs, r.config.heal, epochs=epochs, seed=r.seed(purposes.HEAL, 0))

    return own_steps(
        bench, name, len(order), lambda step, _worn: order[step], partial(losses, r.model, nll=nll)
    )


def losses(model: PreTrainedModel, part: list[Pair], *, nll: float = 0.0) -> Float[Tensor, " n"]:
    """Each pair's loss in nats, from one pass over both answers."""
    given = token_nlls(model, [p.chosen for p in part] + [p.rejected for p in part])
    log_p = -torch.stack([x.sum() for x in given])
    base = log_p.new_tensor([p.base_chosen for p in part] + [p.base_rejected for p in part])
    gain = (log_p - base).view(2, -1)
    return dpo(gain[0], gain[1]) + nll * torch.stack([x.mean() for x in given[: len(part)]])


def dpo(
    chosen: Float[Tensor, " n"], rejected: Float[Tensor, " n"], beta: float = BETA
) -> Float[Tensor, " n"]:
    """The first term, from log π − log π₀ of both answers of each pair."""
    return -logsigmoid(beta * (chosen - rejected))
