"""The heal loss on packed tokens; logits exist for one chunk of tokens at a time, and only once."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from steer_heal_love.ground.models import head
from steer_heal_love.ground.scoring import CHUNK
from steer_heal_love.heal import Divergence


class _TokenTerms(torch.autograd.Function):
    """Both terms and their gradients by hidden state, chunk by chunk, in one pass over the vocabulary.

    A token's terms depend on its own hidden state only, so the gradient of the sum holds every token's; the
    backward pass scales rows of width d and never sees the vocabulary again.
    """

    @staticmethod
    def forward(ctx, hidden, targets, reference, model, divergence):  # type: ignore[override]
        values: list[list[Tensor]] = [[], []]
        grads: list[list[Tensor]] = [[], []]
        for i in range(0, len(hidden), CHUNK):
            with torch.enable_grad():
                leaf = hidden[i : i + CHUNK].detach().requires_grad_()
                logits = head(model, leaf)
                terms = []
                if targets is not None:
                    terms.append((0, cross_entropy(logits, targets[i : i + CHUNK], reduction="none")))
                if reference is not None:
                    with torch.no_grad():
                        theirs = head(model, reference[i : i + CHUNK])
                    terms.append((1, divergence(theirs, logits)))
                for n, (which, term) in enumerate(terms):
                    (grad,) = torch.autograd.grad(term.sum(), leaf, retain_graph=n + 1 < len(terms))
                    values[which].append(term.detach())
                    grads[which].append(grad)
        whole = [torch.cat(v) if v else hidden.new_zeros(len(hidden), dtype=torch.float32) for v in values]
        ctx.save_for_backward(*(torch.cat(g) if g else hidden.new_zeros(1, 1) for g in grads))
        return whole[0], whole[1]

    @staticmethod
    def backward(ctx, *upstream):  # type: ignore[override]
        nll, divergence = ctx.saved_tensors
        by = [u.to(nll.dtype).unsqueeze(1) for u in upstream]
        return by[0] * nll + by[1] * divergence, None, None, None, None


def token_terms(
    model: PreTrainedModel,
    hidden: Float[Tensor, "t d"],
    targets: Int[Tensor, " t"] | None,
    reference: Float[Tensor, "t d"] | None,
    divergence: Divergence,
) -> tuple[Float[Tensor, " t"], Float[Tensor, " t"]]:
    """NLL of the targets and divergence from the reference, per token, in nats; 0 for what is not given."""
    return _TokenTerms.apply(hidden, targets, reference, model, divergence)  # type: ignore[no-any-return]


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
