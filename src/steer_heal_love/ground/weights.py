"""Fold low-rank rounds into pristine weights, and take them out again without a trace.

    W' = cast(W_fp32 + Σ_k s_k B_k A_k)

computed in fp32 and cast once. The pristine bits are kept aside and copied back on every way out, after an
exception too; nothing is ever subtracted. Forward and backward inside the context see W'.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from steer_heal_love.ground.hooks import once
from steer_heal_love.nouns import Adapter


@contextmanager
def folded(model: PreTrainedModel, rounds: Sequence[Adapter]) -> Iterator[None]:
    """The model with `rounds` folded into its weights; bit-exactly pristine again afterwards."""
    with ExitStack() as stack:
        stack.enter_context(once(model, "folded"))
        for name in sorted({name for adapter in rounds for name in adapter.factors}):
            weight: Tensor = model.get_submodule(name).weight  # type: ignore[assignment]
            if weight.requires_grad:
                raise RuntimeError(
                    f"{name}.weight wants gradients; folding edits weights, so freeze it first"
                )
            pristine = weight.detach().clone()
            stack.callback(weight.data.copy_, pristine)
            with torch.no_grad():
                total = pristine.to(torch.float32, copy=True)
                for adapter in rounds:
                    if name in adapter.factors:
                        a, b = adapter.factors[name]
                        total += adapter.scaling * (b.to(total.device) @ a.to(total.device))
                weight.data.copy_(total)
        yield
