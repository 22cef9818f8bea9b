"""The heal loss on packed tokens, in chunks whose logits are recomputed in the backward pass."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from steer_heal_love.ground.models import head
from steer_heal_love.ground.scoring import CHUNK
from steer_heal_love.heal import Divergence


def token_terms(
    model: PreTrainedModel,
    hidden: Float[Tensor, "t d"],
    targets: Int[Tensor, " t"],
    reference: Float[Tensor, "t d"] | None,
    divergence: Divergence,
) -> tuple[Float[Tensor, " t"], Float[Tensor, " t"]]:
    """NLL of the targets and divergence from the reference, per token, in nats; 0 without a reference."""

    def chunk(h: Tensor, y: Tensor, r: Tensor | None) -> tuple[Tensor, Tensor]:
        logits = head(model, h)
        nll = torch.nn.functional.cross_entropy(logits, y, reduction="none")
        if r is None:
            return nll, torch.zeros_like(nll)
        with torch.no_grad():
            theirs = head(model, r)
        return nll, divergence(theirs, logits)

    refs = reference.split(CHUNK) if reference is not None else [None] * len(hidden.split(CHUNK))
    parts = [
        checkpoint(chunk, h, y, r, use_reentrant=False)
        for h, y, r in zip(hidden.split(CHUNK), targets.split(CHUNK), refs, strict=True)
    ]
    nll, div = zip(*parts, strict=True)
    return torch.cat(nll), torch.cat(div)


def aggregate(values: Float[Tensor, " t"], how: str) -> Float[Tensor, ""]:
    """One number for a completion's per-token divergences; the tail ones see an outlier a mean dilutes."""
    if how == "mean":
        return values.mean()
    if how == "rmse":
        return values.pow(2).mean().sqrt()
    if how == "p95":
        return values.quantile(0.95)
    if how == "max":
        return values.max()
    raise ValueError(f"aggregate {how!r}: expected mean, rmse, p95 or max")


def hinge(
    values: Float[Tensor, " t"], lengths: list[int], how: str, tau: float
) -> Float[Tensor, ""]:
    """mean over completions of relu(agg_t D − τ)."""
    each = torch.stack([aggregate(v, how) for v in values.split(lengths)])
    return torch.relu(each - tau).mean()
