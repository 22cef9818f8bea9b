"""Steering at the output of linear modules, as the weights and biases of those modules: the same model without hooks.

    A(h) = h + shift(h) is affine, so A(W x + c) = M W x + A(c)  with  M w = A(w) − A(0)

Every column of W is put through the operation as if it were a state, so no operation needs a formula of its own here. A
module without a bias gets a place for one only where A(c) is not zero. What comes out is compared with the hooked model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from steer_heal_love.ground import linear, places
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.hooks import once
from steer_heal_love.ground.operations import Steering, operations
from steer_heal_love.ground.weights import put
from steer_heal_love.ground.writer_bias import gap, near, read_ids, with_places


@contextmanager
def in_modules(model: PreTrainedModel, steering: Steering, dose: float) -> Iterator[None]:
    """The model with the steering in the modules' weights; as before after.

    Raises `UserError` for quantised weights, where a module has no place for a bias that it needs, and where the model
    isn't the one under hooks.
    """
    want, plain = logits(model, steering(model, dose)), logits(model, nullcontext())
    modules = placed(model, steering)
    maps = {name: affine(module, steering, index, dose) for name, (index, module) in modules.items()}
    with ExitStack() as stack:
        stack.enter_context(once(model, "folded"))
        need = [n for n, (_, bias) in maps.items() if modules[n][1].bias is not None or bool(bias.any())]
        stack.enter_context(with_places(model, sorted(need)))
        for name, (weight, bias) in maps.items():
            module = modules[name][1]
            for into, values in ((module.weight, weight), (module.bias, bias)):
                if into is not None:
                    stack.callback(put, into, into.detach().clone())  # type: ignore[arg-type, operator]
                    put(into, values.to(into))  # type: ignore[arg-type, call-overload]
        found = logits(model, nullcontext())
        if not near(found, want, plain):
            raise UserError(
                f"{type(model).__name__}: the steered model can't be written without hooks. With the steering in the weights of "
                f"{', '.join(sorted(maps))} its logits differ from the steered ones by {gap(found, want):.3g}, where "
                f"steering moves them by {gap(want, plain):.3g}. Export the healed model instead."
            )
        yield


@torch.no_grad()
def logits(model: PreTrainedModel, context: AbstractContextManager[Any]) -> Float[Tensor, "s v"]:
    """fp32 logits of a few drawn tokens."""
    with context:
        return model(input_ids=read_ids(model), use_cache=False).logits[0].float()  # type: ignore[no-any-return]


def placed(model: PreTrainedModel, steering: Steering) -> dict[str, tuple[int, nn.Module]]:
    """The modules that are steered, by their names in the model, each with its layer's number."""
    hook = places.of(steering.directions).hook
    mine = {id(places.module(model, i, hook)): i for i in steering.directions}
    found = {name: (mine[id(m)], m) for name, m in model.named_modules() if id(m) in mine}
    if packed := [n for n, (_, m) in found.items() if not m.weight.is_floating_point()]:  # type: ignore[union-attr, operator]
        raise UserError(
            f"{packed[0]}: its weights are quantised, and rounding them again would lose the steering."
        )
    return found


@torch.no_grad()
def affine(
    module: nn.Module, steering: Steering, index: int, dose: float
) -> tuple[Float[Tensor, "x y"], Float[Tensor, " o"]]:
    """The module's weight, laid out as it is, and its bias, with the operation in them; fp32."""
    act, turned = operations[steering.operation], linear.turned(module)
    whole: Tensor = module.weight.float()  # type: ignore[operator, union-attr, assignment]
    v = steering.directions[index].to(whole)
    applied = lambda states: states + act(states[None], v, dose)[0]
    columns = whole if turned else whole.T
    zero = whole.new_zeros(1, columns.shape[1])
    bias = zero if module.bias is None else module.bias.float()[None]  # type: ignore[operator, union-attr]
    moved = applied(columns) - applied(zero)
    return moved if turned else moved.T, applied(bias)[0]
