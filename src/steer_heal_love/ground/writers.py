"""What writes to the residual stream: the linear modules of each layer whose output is added to it, and their weights.

They are found by trying, not by name. A large random vector is added to what one module gives, and taken away from it. Where
the module writes to the stream, the layer's output moves by the signs of that vector; a query's, a key's or a value's moves
otherwise, or hardly. A norm between a module and the stream (Gemma 2 and 3) scales the coordinates and is passed over, so
that there the weights are those before the norm.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from steer_heal_love.ground import linear
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.hooks import captured
from steer_heal_love.ground.parts import layers

ALONG = 0.2
"""least mean product of signs, of what is added to a module's output and of how the layer's output moves: 1 is all alike, 0 is chance"""
TRIES, PUSH = 8, 1e3
"""random vectors for each module, and how many times the stream's largest value they are"""
TOKEN = 1
"""what is read meanwhile: one token in every row"""


@dataclass
class Writers:
    """The Gram matrices W Wᵀ, fp32 on the host, of what writes to the stream at each layer; each is computed once."""

    model: PreTrainedModel
    _grams: dict[int, Float[Tensor, "d d"]] = field(default_factory=dict)

    def gram(self, index: int) -> Float[Tensor, "d d"]:
        """Of one layer's writers. Raises `UserError` where it has none."""
        if index not in self._grams:
            block = layers(self.model)[index]
            parts = [weight(block.get_submodule(name)) for name in names(self.model, index)]
            self._grams[index] = sum((w @ w.T for w in parts), torch.zeros(())).cpu()
        return self._grams[index]

    def pooled(self, index: int) -> Float[Tensor, "d d"]:
        """Of the writers of all layers up to this one."""
        return sum((self.gram(i) for i in range(index + 1)), torch.zeros(()))


@torch.no_grad()
def names(model: PreTrainedModel, index: int) -> list[str]:
    """The writers of a layer, by their names in it. Raises `UserError` where it has none."""
    width = model.config.get_text_config(decoder=True).hidden_size
    block = layers(model)[index]
    inside = [(n, m) for n, m in block.named_modules() if linear.plain(m) and linear.shape(m)[0] == width]
    found = [name for name, module in inside if writes(model, index, module)]
    if not found:
        raise UserError(
            f"{type(model).__name__}: decoder layer {index} has no linear module that writes to the residual stream, so its "
            "weights say nothing of the stream's directions. Take another steering method (`shl list methods`)."
        )
    return found


def writes(model: PreTrainedModel, index: int, module: nn.Module) -> bool:
    """Whether the layer's output moves along what is added to this module's output."""
    ids = torch.full((TRIES, 1), TOKEN, device=model.device)
    state = lambda: captured(model, [index], input_ids=ids, use_cache=False)[index]
    before = state()
    draw = torch.Generator().manual_seed(0)
    push = torch.randn(before.shape, generator=draw).to(before) * PUSH * before.abs().max()
    with pushed(module, push):
        there = state()
    with pushed(module, -push):
        back = state()
    # Signs alone: a norm behind the module may scale some coordinates a hundred times as much as others.
    return ((there - back).sign() * push.sign()).mean().item() > ALONG


@contextmanager
def pushed(module: nn.Module, push: Float[Tensor, "b d"]) -> Iterator[None]:
    """A vector added to each row of what a module gives."""
    hook = module.register_forward_hook(lambda _m, _a, out: out + push.to(out)[:, None])
    try:
        yield
    finally:
        hook.remove()


@torch.no_grad()
def weight(module: nn.Module) -> Float[Tensor, "o i"]:
    """fp32, as the module applies it: read off the unit vectors, so packed weights and adapters beside them count."""
    _, i = linear.shape(module)
    unit = torch.eye(i, device=module.weight.device, dtype=_type_of(module))  # type: ignore[arg-type, union-attr]
    nothing = module(unit.new_zeros(1, 1, i))
    return (module(unit[None]) - nothing)[0].T.float()


def _type_of(module: nn.Module) -> torch.dtype:
    found: Tensor = module.weight  # type: ignore[assignment]
    return found.dtype if found.is_floating_point() else torch.get_default_dtype()
