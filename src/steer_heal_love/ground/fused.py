"""Fused kernels for what stands between a decoder's products: norms, rotary positions and gated MLPs, on a CUDA device.

They are Liger-Kernel's (Hsu et al. 2024, arXiv:2410.10989), used where that package is installed, knows the model's
family and gives what the model gives without it, states and gradients both; otherwise the model stays as it was.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from steer_heal_love.ground.parts import body, layers, stream
from steer_heal_love.ground.reading import FAILS, closeness, read

OFF = {"cross_entropy": False, "fused_linear_cross_entropy": False}
"""the library's losses, which are not used here and would replace the model's own forward"""
TRIED = 64
"""tokens that are read both ways"""
SHALLOW = 4
"""decoder layers that a gradient is compared through"""


def fuse(model: PreTrainedModel) -> bool:
    """Put fused kernels into a model on a CUDA device; whether they are there now."""
    patch = library(model.config.model_type)
    if patch is None or model.device.type != "cuda":
        return False
    with undone_unless(model) as keep:
        before = seen(model)
        patch(model)
        keep(alike(seen(model), before, closeness(model)))
    return keep.kept


def library(family: str) -> Callable[[PreTrainedModel], None] | None:
    """The library's function that patches a model of this family; None where there is none."""
    try:
        patches = importlib.import_module("liger_kernel.transformers.monkey_patch")
    except ImportError:
        return None
    known: dict[str, Callable[..., None]] = patches.MODEL_TYPE_TO_APPLY_LIGER_FN
    if family not in known:
        return None

    def patch(model: PreTrainedModel) -> None:
        logging.getLogger(patches.__name__).setLevel(logging.WARNING)
        patches._apply_liger_kernel_to_instance(model=model, **OFF)

    return patch


def seen(model: PreTrainedModel) -> tuple[Float[Tensor, "1 t d"], Float[Tensor, "1 t d"]]:
    """Final states over some tokens; and the gradient, by their embeddings, of a fixed random sum of the states above the
    first few layers: deeper, rounding alone makes another gradient of it."""
    draw = torch.Generator().manual_seed(0)
    top = model.config.get_text_config(decoder=True).vocab_size
    ids = torch.randint(1, top, (1, TRIED), generator=draw).to(model.device)
    met: dict[str, Tensor] = {}

    def cut(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        met["below"] = output.detach().requires_grad_(True)
        return met["below"]

    def note(_module: nn.Module, _args: Any, output: Any) -> None:
        met["above"] = stream(model, output)

    blocks = layers(model)
    hooks = [
        model.get_input_embeddings().register_forward_hook(cut),
        blocks[min(SHALLOW, len(blocks)) - 1].register_forward_hook(note),
    ]
    try:
        states = read(model, ids, use_cache=False)[0]
    finally:
        for hook in hooks:
            hook.remove()
    weights = torch.randn(states.shape, generator=draw).to(states)
    (gradient,) = torch.autograd.grad((met["above"] * weights).sum(), met["below"])
    return states.detach().float(), gradient.float()


def alike(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], bound: float) -> bool:
    """Whether two readings are one up to rounding, each by the norm of the difference over that of what is expected."""
    return all(
        bool(((f - e).norm() <= bound * e.norm()).item()) for f, e in zip(found, expected, strict=True)
    )


class Keep:
    """Says whether a change of a model stays."""

    kept = False

    def __call__(self, verdict: bool) -> None:
        self.kept = verdict


@contextmanager
def undone_unless(model: PreTrainedModel) -> Iterator[Keep]:
    """Take back what is done to the model's modules and to its family's code, unless told to keep it or on an error that
    a model may answer with."""
    modules = [(m, dict(vars(m))) for m in model.modules()]
    code: ModuleType = sys.modules[type(body(model)).__module__]
    names, keep = dict(vars(code)), Keep()
    try:
        yield keep
    except FAILS as error:
        logging.getLogger(__name__).warning("fused kernels left out: %s", error)
    if not keep.kept:
        for module, was in modules:
            vars(module).clear()
            vars(module).update(was)
        vars(code).update(names)
