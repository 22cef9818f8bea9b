"""One model on several GPUs by its layers, for weights that no GPU holds alone: each computes while the others wait.

Everything but the decoder layers stays on the first device, where ids come in and final states come out, so that all
else sees a model of one device; the layers follow each other over the devices, about as many bytes on each. What a layer
is given is moved to where it is, and what the last one gives is moved back.
Invariant: the numbers are those of the model on one device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.parts import layers

_spread: WeakSet[nn.Module] = WeakSet()


def devices(device: str, split: int) -> list[torch.device]:
    """The first `split` devices of a kind. Raises `UserError` where there are fewer."""
    if split == 1:
        return []
    here = torch.cuda.device_count() if device.startswith("cuda") else 0
    if split > here:
        raise UserError(
            f"split: {split} GPUs a copy, torch finds {here} here (device {device}); give --split {max(here, 1)} or less."
        )
    return [torch.device("cuda", i) for i in range(split)]


def is_spread(model: nn.Module) -> bool:
    """Whether a model's layers lie on several devices."""
    return model in _spread


def spread(model: PreTrainedModel, over: Sequence[torch.device | str]) -> None:
    """Move a model's layers over the devices, the rest to the first, and let what passes between them move too."""
    blocks, first = layers(model), torch.device(over[0])
    rest = sum(size(p) for p in model.parameters()) - sum(map(weight, blocks))
    where = shares([weight(b) for b in blocks], len(over), already=rest)
    own = {id(t) for b in blocks for t in (*b.parameters(), *b.buffers())}
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, t in tensors.items():
                if t is not None and id(t) not in own:
                    tensors[name] = on(t, first)
    for block, part in zip(blocks, where, strict=True):
        block.to(over[part])
        there, back = torch.device(over[part]), first if block is blocks[-1] else None
        block.forward = forwarding(block.forward, there, back)  # type: ignore[method-assign]
    _spread.add(model)


def on(t: Tensor, device: torch.device) -> Tensor:
    """A weight or buffer on the device, of the same kind; the very same one to all that share it."""
    if isinstance(t, nn.Parameter):
        t.data = t.data.to(device)
        return t
    return t.to(device)


def shares(sizes: Sequence[int], parts: int, *, already: int = 0) -> list[int]:
    """Which part each of a row of sizes falls to, in order, none empty, about as much in each; the first part holds
    `already` so much else."""
    whole, before, out = sum(sizes) + already, already, list[int]()
    for i, width in enumerate(sizes):
        wanted = min(int((before + width / 2) * parts / whole), parts - 1)
        least = max(parts - (len(sizes) - i), 0)
        most = out[-1] + 1 if out else 0
        out.append(min(max(wanted, least, out[-1] if out else 0), most))
        before += width
    return out


def weight(module: nn.Module) -> int:
    """Bytes of a module's parameters."""
    return sum(size(p) for p in module.parameters())


def size(p: Tensor) -> int:
    return p.numel() * p.element_size()


def forwarding(
    forward: Callable[..., Any], device: torch.device, back: torch.device | None
) -> Callable[..., Any]:
    """A layer's forward on its device, whatever it is given moved there; what it gives goes `back`, or stays."""

    def there(*args: Any, **kwargs: Any) -> Any:
        # Kernels that aren't torch's own run on the current device, wherever their tensors are.
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            out = forward(*moved(args, device), **moved(kwargs, device))
        return out if back is None else moved(out, back)

    return there


def moved(value: Any, device: torch.device) -> Any:
    """Tensors on the device, in tuples, lists and dicts too; anything else, such as a cache, as it is."""
    if isinstance(value, Tensor):
        return value.to(device)
    if type(value) in (tuple, list):
        return type(value)(moved(v, device) for v in value)
    if type(value) is dict:
        return {k: moved(v, device) for k, v in value.items()}
    return value
