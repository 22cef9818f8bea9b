"""Rounds kept beside weights that can't hold them: a base in 4 bits.

    y = W_q x + Σ_k s_k B_k (A_k x)

Rounding W_q + ΔW to 4 bits again would lose nearly all of a small update, so nothing is folded. This is the form that
is exported, so what is trained on and measured is what users get. Source of adapters beside a 4-bit base: arXiv 2305.14314.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from steer_heal_love.ground.hooks import once
from steer_heal_love.nouns import Adapter


def needed(model: PreTrainedModel, rounds: Sequence[Adapter]) -> bool:
    """Whether any module that the rounds change stores its weight quantised."""
    names = {name for adapter in rounds for name in adapter.factors}
    return any(not model.get_submodule(name).weight.is_floating_point() for name in names)  # type: ignore[operator]


@contextmanager
def factored(model: PreTrainedModel, rounds: Sequence[Adapter]) -> Iterator[None]:
    """The model with `rounds` added to what each module gives; factors stay fp32, products run in the input's type."""
    with ExitStack() as stack:
        stack.enter_context(once(model, "folded"))
        for name in sorted({name for adapter in rounds for name in adapter.factors}):
            parts = [
                (*adapter.factors[name], adapter.scaling) for adapter in rounds if name in adapter.factors
            ]
            place = model.get_submodule(name).weight.device
            down = torch.cat([a.detach() for a, _, _ in parts]).to(place)
            up = torch.cat([b.detach() * s for _, b, s in parts], 1).to(place)

            def hook(_module: Any, args: Any, output: Any, down: Tensor = down, up: Tensor = up) -> Any:
                x = args[0]
                return output + (x @ down.to(x).T) @ up.to(x).T

            stack.callback(model.get_submodule(name).register_forward_hook(hook).remove)
        yield
