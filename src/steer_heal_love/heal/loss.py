"""The heal loss on packed tokens; logits exist for one chunk of tokens at a time, and only once."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from steer_heal_love.ground.models import bare, narrow_head
from steer_heal_love.ground.scoring import chunk
from steer_heal_love.ground.vocabulary import nll
from steer_heal_love.heal import Divergence


class _TokenTerms(torch.autograd.Function):
    """Every term and its gradient by hidden state, chunk by chunk, in one pass over the vocabulary.

    A token's terms depend on its own hidden state only, so the gradient of the sum holds every token's; the
    backward pass scales rows of width d and never sees the vocabulary again. Where nobody asks for gradients
    (validation), none are computed.
    """

    @staticmethod
    def forward(ctx, hidden, targets, model, references, learn_nll):  # type: ignore[override]
        values: list[list[Tensor]] = [[] for _ in range(1 + len(references))]
        grads: list[list[Tensor]] = [[] for _ in values]
        wanted = ctx.needs_input_grad[0]
        size = chunk(model)
        for i in range(0, len(hidden), size):
            with torch.set_grad_enabled(wanted):
                leaf = hidden[i : i + size].detach().requires_grad_(wanted)
                logits = narrow_head(model, leaf)
                terms = []
                if targets is not None:
                    terms.append((0, nll(logits if learn_nll else logits.detach(), targets[i : i + size])))
                for n, (states, divergence) in enumerate(references, 1):
                    with torch.no_grad():
                        theirs = bare(model)(states[i : i + size])
                    terms.append((n, divergence(theirs, logits)))
                for n, term in terms:
                    values[n].append(term.detach())
                    if term.requires_grad:
                        (grad,) = torch.autograd.grad(term.sum(), leaf, retain_graph=n != terms[-1][0])
                        grads[n].append(grad)
        ctx.save_for_backward(*(torch.cat(g) if g else hidden.new_zeros(1, 1) for g in grads))
        return tuple(torch.cat(v) if v else hidden.new_zeros(len(hidden)).float() for v in values)

    @staticmethod
    def backward(ctx, *upstream):  # type: ignore[override]
        rows = [u.to(g.dtype).unsqueeze(1) * g for u, g in zip(upstream, ctx.saved_tensors, strict=True)]
        return sum(rows), None, None, None, None


def token_terms(
    model: PreTrainedModel,
    hidden: Float[Tensor, "t d"],
    targets: Int[Tensor, " t"] | None,
    *references: tuple[Float[Tensor, "t d"], Divergence],
    learn_nll: bool = True,
) -> tuple[Float[Tensor, " t"], ...]:
    """Per token, in nats: NLL of the targets (0 without any), then the divergence from each reference. Where `learn_nll`
    is off, the NLL is for the record and has no gradient."""
    return _TokenTerms.apply(hidden, targets, model, references, learn_nll)  # type: ignore[no-any-return]


def aggregate(values: Float[Tensor, " t"], how: str) -> Float[Tensor, ""]:
    """One number for a completion's per-token divergences; the tail ones see an outlier a mean dilutes."""
    if how == "mean":
        return values.mean()
    if how == "rmse":
        return (values.pow(2).mean() + 1e-12).sqrt()  # the root of 0 has no gradient
    if how == "p95":
        return values.quantile(0.95)
    if how == "max":
        return values.max()
    raise ValueError(f"aggregate {how!r}: expected mean, rmse, p95 or max")


def hinge(values: Float[Tensor, " t"], lengths: list[int], how: str, tau: float) -> Float[Tensor, ""]:
    """mean over completions of relu(agg_t D − τ)."""
    each = torch.stack([aggregate(v, how) for v in values.split(lengths)])
    return torch.relu(each - tau).mean()
