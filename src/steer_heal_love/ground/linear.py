"""Which of a model's matrices a LoRA can adapt so that PEFT loads the same model from it; and which are left out.

A matrix is adaptable as a plain linear module: `nn.Linear`, or GPT-2's `Conv1D`, which keeps the transpose. Subclasses
that do more are left out, and modules that the model never calls, and so are leaves named as a checkpoint's experts are: where the library fuses experts
on loading, PEFT takes every target of such a name to be one of them, also a shared expert or a dense layer.
"""

from __future__ import annotations

from collections import Counter
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter
from transformers.pytorch_utils import Conv1D

from steer_heal_love.ground.packed import PackedLinear
from steer_heal_love.ground.parts import layers
from steer_heal_love.ground.reading import FAILS, forward

FORWARDS = (nn.Linear.forward, PackedLinear.forward, Conv1D.forward)
ROWS = 3
"""of random numbers that another forward is tried on"""
TRIED = 64
"""tokens that are read to see which modules are called"""
ROUTER = "gate"
"""how PEFT takes a router to be called where experts are fused"""


SCANNED = frozenset({"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"})
"""model types of which PEFT refuses an adapter on `out_proj`, since the scan's own kernels read its weight past the module"""


def plain(module: nn.Module) -> bool:
    """Whether a module is x ↦ W x + b and nothing else; a subclass with a forward of its own is tried."""
    if not isinstance(module, (nn.Linear, Conv1D)):
        return False
    return type(module).forward in FORWARDS or (isinstance(module, nn.Linear) and behaves(module))


@torch.no_grad()
def behaves(module: nn.Linear) -> bool:
    """Whether a linear layer with a forward of its own gives what its weight and bias give.

    A quantised weight can't be multiplied as it is stored: there the shape of what comes out has to do.
    """
    draw, whole = torch.Generator().manual_seed(0), module.weight.is_floating_point()
    x = torch.randn(ROWS, module.in_features, generator=draw).to(module.weight.device)
    x = x.to(module.weight) if whole else x
    try:
        found = module(x)
    except FAILS:
        return False
    if not whole:
        return isinstance(found, Tensor) and found.shape == (ROWS, module.out_features)
    plain = nn.functional.linear(x, module.weight, module.bias)
    return (
        isinstance(found, Tensor)
        and found.shape == plain.shape
        and torch.allclose(found, plain, rtol=1e-3, atol=1e-3)
    )


def turned(module: nn.Module) -> bool:
    """Whether a module keeps its weight as [in, out]."""
    return isinstance(module, Conv1D)


def shape(module: nn.Module) -> tuple[int, int]:
    """Features out and in; a quantised weight is packed and has a shape of its own."""
    if not module.weight.is_floating_point():  # type: ignore[union-attr, operator]
        return module.out_features, module.in_features  # type: ignore[return-value]
    o, i = module.weight.shape  # type: ignore[union-attr, misc]
    return (i, o) if turned(module) else (o, i)


def refused(model: PreTrainedModel) -> frozenset[str]:
    """Leaf names that PEFT does not take as they are: of a scan, and what it takes for experts, which is whatever the
    library fuses several of a checkpoint's matrices from."""
    scan = {"out_proj"} if model.config.model_type in SCANNED else set()
    sources = [
        pattern
        for conversion in get_model_conversion_mapping(model)
        if isinstance(conversion, WeightConverter)
        for pattern in conversion.source_patterns
        if "expert" in pattern
    ]
    leaves = {p.removesuffix(".weight").removesuffix("$").rpartition(".")[2] for p in sources}
    return frozenset(scan | leaves | ({ROUTER} if leaves else set()))


_ran: WeakKeyDictionary[nn.Module, frozenset[str]] = WeakKeyDictionary()


def ran(model: PreTrainedModel) -> frozenset[str]:
    """Names of the linear modules that are called when the model reads text: found once by reading some.

    A scan takes the weight of a module that it never calls; an adapter on that would be seen by a fold and nowhere else.
    """
    if model not in _ran:
        met: set[str] = set()
        note = lambda name: lambda *_: met.add(name)
        hooks = [m.register_forward_hook(note(n)) for n, m in model.named_modules() if plain(m)]
        try:
            draw = torch.Generator().manual_seed(0)
            top = model.config.get_text_config(decoder=True).vocab_size
            with torch.no_grad():
                forward(
                    model, torch.randint(1, top, (1, TRIED), generator=draw).to(model.device), use_cache=False
                )
        finally:
            for hook in hooks:
                hook.remove()
        _ran[model] = frozenset(met)
    return _ran[model]


def adaptable(model: PreTrainedModel, band: list[int]) -> list[str]:
    """Full names of the modules in these decoder layers that a LoRA is exact on, in the model's order."""
    blocks, taken, called = layers(model), refused(model), ran(model)
    inside = {id(m) for i in band for m in blocks[i].modules()}
    return [
        name
        for name, module in model.named_modules()
        if id(module) in inside and name in called and name.rpartition(".")[2] not in taken
    ]


def left_out(model: PreTrainedModel, band: list[int]) -> tuple[dict[str, int], int]:
    """How many matrices of these layers are not adapted, by the name of their leaf, and how many there are in all.

    A fused tensor of n experts counts as n matrices.
    """
    blocks, names, missing, whole = layers(model), set(adaptable(model, band)), Counter[str](), 0
    inside = {
        id(p)
        for i in band
        for p in blocks[i].parameters()
        if p.ndim in (2, 3) and (min(p.shape[-2:]) > 1 or not p.is_floating_point())
    }
    for name, weight in model.named_parameters():
        if id(weight) in inside:
            n = weight.shape[0] if weight.ndim == 3 else 1
            whole += n
            if name.removesuffix(".weight") not in names:
                missing[name.removesuffix(".weight").rpartition(".")[2]] += n
    return dict(missing), whole
