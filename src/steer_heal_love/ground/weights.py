"""Fold low-rank rounds into pristine weights, and take them out again without a trace.

    W' = cast(W_fp32 + Σ_k s_k B_k A_k)

computed in fp32 and cast once. Rounding to the nearest would lose every change smaller than half a unit in
the last place, which in bf16 is a quarter of what a small update does; below fp32 the cast is therefore
stochastic, up or down with the odds that make E[W'] exact, drawn from a seed of the weight's name. The pristine bits are kept aside and copied back on every way out, after an
exception too; nothing is ever subtracted. GPT-2's layers keep the transpose of W. Forward and backward inside the context see W'.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from steer_heal_love.ground import factored, fits, linear
from steer_heal_love.ground.hooks import once
from steer_heal_love.ground.last import Last
from steer_heal_love.ground.memory import free_bytes, unclaimed_bytes, unused_bytes
from steer_heal_love.nouns import Adapter

ROOM = 6
"""copies of the folded weights that a GPU must have room for, so that one of them stays there: a heal takes about four"""


Mark = tuple[int, torch.dtype, int]
Folds = Last[dict[str, Tensor]]
"""the weights of the student that was folded last, by module: folding it again is a copy. They stay only where a GPU has plenty
of room for them"""


@contextmanager
def folded(model: PreTrainedModel, rounds: Sequence[Adapter], folds: Folds | None = None) -> Iterator[None]:
    """The model with `rounds` folded into its weights; bit-exactly pristine again afterwards. `folds` remembers them.

    Quantised weights can't hold an update: there the rounds stay beside them, as they are exported (`factored`).
    Raises `UserError` for a module that the model has not, and for another shape.
    """
    for adapter in rounds:
        fits.adapter(model, adapter.factors)
    with ExitStack() as stack:
        if factored.needed(model, rounds):
            stack.enter_context(factored.factored(model, rounds))
            yield
            return
        stack.enter_context(once(model, "folded"))
        names = sorted({name for adapter in rounds for name in adapter.factors})
        known = folds.of(rounds) if folds else None  # first, since it makes room
        home = shelter([model.get_submodule(name).weight for name in names])  # type: ignore[misc]
        weights: dict[str, Tensor] = {}
        for name in names:
            module = model.get_submodule(name)
            weight: Tensor = module.weight  # type: ignore[assignment]
            if weight.requires_grad:
                raise RuntimeError(
                    f"{name}.weight wants gradients; folding edits weights, so freeze it first"
                )
            stack.callback(restore, module, pristine(module, home), home)
            put(weight, known[name] if known else summed(module, name, rounds))
            weights[name] = weight
        if folds and not known and roomy(list(weights.values())):
            folds.keep(rounds, {name: weight.detach().clone() for name, weight in weights.items()})
        yield


_sheltered: WeakKeyDictionary[nn.Module, tuple[Mark, Tensor]] = WeakKeyDictionary()
"""by module, a copy of its pristine weight on the host, and how the weight could be told when it was last pristine"""


def pristine(module: nn.Module, home: torch.device | None) -> Tensor:
    """A copy of a module's weight, beside it or at `home`. There it is made once and kept: bringing a large model's weights to
    the host takes many times as long as folding them."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    if home is None:
        return weight.detach().clone()
    last = _sheltered.get(module)
    return last[1] if last and last[0] == mark(weight) else weight.detach().to(home, copy=True)


def restore(module: nn.Module, copy: Tensor, home: torch.device | None) -> None:
    """Put a pristine copy back."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    put(weight, copy)
    if home is not None:
        _sheltered[module] = mark(weight), copy


def mark(weight: Tensor) -> Mark:
    """What changes with a weight: where it lies, its type, and how often it was edited in place."""
    return weight.data_ptr(), weight.dtype, weight._version


@torch.no_grad()
def summed(module: Any, name: str, rounds: Sequence[Adapter]) -> Float[Tensor, "o i"]:
    """A module's weight with what these rounds add to it, in its type."""
    total = module.weight.to(torch.float32, copy=True)
    for adapter in rounds:
        if name in adapter.factors:
            a, b = adapter.factors[name]
            change = adapter.scaling * (b.to(total.device) @ a.to(total.device))
            total += change.T if linear.turned(module) else change
    return rounded(total, module.weight.dtype, name)


def placed(model: PreTrainedModel, adapter: Adapter) -> Adapter:
    """The same update, each module's factors where its weight is: those read back from a file are on the host."""
    at = {name: model.get_submodule(name).weight.device for name in adapter.factors}
    factors = {n: (a.to(at[n]), b.to(at[n])) for n, (a, b) in adapter.factors.items()}  # type: ignore[arg-type]
    return Adapter(factors, adapter.scaling)


def shelter(weights: Sequence[Tensor]) -> torch.device | None:
    """Where copies of these weights are kept: the host where they would take more than half of what their GPU has free,
    as those of a model that nearly fills it; None for beside each."""
    sizes = bytes_by_device(weights).items()
    tight = any(device.type == "cuda" and size > free_bytes(device) / 2 for device, size in sizes)
    return torch.device("cpu") if tight else None


def bytes_by_device(weights: Sequence[Tensor]) -> Counter[torch.device]:
    """What these weights take of each device that they lie on."""
    found: Counter[torch.device] = Counter()
    for weight in weights:
        found[weight.device] += weight.numel() * weight.element_size()
    return found


def roomy(weights: Sequence[Tensor]) -> bool:
    """Whether these weights all lie on GPUs that have room for `ROOM` more of each."""
    for device, size in bytes_by_device(weights).items():
        if device.type != "cuda":
            return False
        with torch.cuda.device(device):
            if unclaimed_bytes() + unused_bytes() < ROOM * size:
                return False
    return True


@torch.no_grad()
def put(weight: Tensor, values: Tensor) -> None:
    """New values in place, counted as a new version of the weight."""
    weight.copy_(values)


def rounded(exact: Float[Tensor, "o i"], dtype: torch.dtype, name: str) -> Float[Tensor, "o i"]:
    """`exact` in a smaller type, each entry on one of its two neighbours with mean `exact`; fp32 as it is.

    The same draw for a name every time on one kind of device, so that a weight moves the same way as its update grows. What the
    smaller type can hold exactly stays. Source: stochastic rounding, arXiv 1502.02551.
    """
    if torch.finfo(dtype).bits >= 32:
        return exact
    nearest = exact.to(dtype)
    missing = exact - nearest.float()
    neighbour = torch.nextafter(nearest, (torch.sign(missing) * torch.inf).nan_to_num(0.0).to(dtype))
    odds = missing / (neighbour.float() - nearest.float())
    generator = torch.Generator(exact.device).manual_seed(zlib.crc32(name.encode()))
    draw = torch.rand(exact.shape, generator=generator, device=exact.device)
    return torch.where(draw < odds, neighbour, nearest)
