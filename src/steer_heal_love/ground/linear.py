"""Which of a model's matrices a LoRA can adapt so that PEFT loads the same model from it; and which are left out.

A matrix is adaptable as a plain linear module: `nn.Linear`, or GPT-2's `Conv1D`, which keeps the transpose. Subclasses
whose forward does more are left out, and so are leaves named as a checkpoint's experts are: where the library fuses experts
on loading, PEFT takes every target of such a name to be one of them, also a shared expert or a dense layer.
"""

from __future__ import annotations

from collections import Counter

from torch import nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter
from transformers.pytorch_utils import Conv1D

from steer_heal_love.ground.packed import PackedLinear
from steer_heal_love.ground.parts import layers

FORWARDS = (nn.Linear.forward, PackedLinear.forward, Conv1D.forward)
ROUTER = "gate"
"""how PEFT takes a router to be called where experts are fused"""


SCANNED = frozenset({"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"})
"""model types of which PEFT refuses an adapter on `out_proj`, since the scan's own kernels read its weight past the module"""


def plain(module: nn.Module) -> bool:
    """Whether a module is x ↦ W x + b and nothing else."""
    return isinstance(module, (nn.Linear, Conv1D)) and type(module).forward in FORWARDS


def turned(module: nn.Module) -> bool:
    """Whether a module keeps its weight as [in, out]."""
    return isinstance(module, Conv1D)


def shape(module: nn.Module) -> tuple[int, int]:
    """Features out and in."""
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


def adaptable(model: PreTrainedModel, band: list[int]) -> list[str]:
    """Full names of the modules in these decoder layers that a LoRA is exact on, in the model's order."""
    blocks, taken = layers(model), refused(model)
    inside = {id(m) for i in band for m in blocks[i].modules()}
    return [
        name
        for name, module in model.named_modules()
        if id(module) in inside and plain(module) and name.rpartition(".")[2] not in taken
    ]


def left_out(model: PreTrainedModel, band: list[int]) -> tuple[dict[str, int], int]:
    """How many matrices of these layers are not adapted, by the name of their leaf, and how many there are in all.

    A fused tensor of n experts counts as n matrices.
    """
    blocks, names, missing, whole = layers(model), set(adaptable(model, band)), Counter[str](), 0
    inside = {
        id(p) for i in band for p in blocks[i].parameters() if p.ndim in (2, 3) and min(p.shape[-2:]) > 1
    }
    for name, weight in model.named_parameters():
        if id(weight) in inside:
            n = weight.shape[0] if weight.ndim == 3 else 1
            whole += n
            if name.removesuffix(".weight") not in names:
                missing[name.removesuffix(".weight").rpartition(".")[2]] += n
    return dict(missing), whole
