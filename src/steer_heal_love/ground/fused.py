"""Fused kernels for what stands between a decoder's products: norms, rotary positions and gated MLPs, on a CUDA device.

They are Liger-Kernel's (Hsu et al. 2024, arXiv:2410.10989), used where that package is installed, knows the model's
family, gives the model's own states up to rounding and leaves it every manner of being read that it has without them;
otherwise the model stays as it was.

They serve readings and decoding, and of the passes that are differentiated those that are captured as a CUDA graph
(`in_training`): in the others the GPU was quicker with them (281 ms against 402) and the step slower, since each launch
costs the processor more.
"""

from __future__ import annotations

import functools
import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields
from types import FunctionType, ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from steer_heal_love.ground import loading
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.parts import body
from steer_heal_love.ground.reading import FAILS, Way, closeness, forget, forward, tried, way, widest

OFF = {"cross_entropy": False, "fused_linear_cross_entropy": False}
"""the library's losses, which are not used here and would replace the model's own forward"""
TRIED = 64
"""tokens that are read both ways"""
ROTARY = "apply_rotary_pos_emb"
"""the name of a family's function that turns queries and keys by their positions"""
PLAIN = "without_kernels"
"""the attribute of a function that chooses, under which the one without kernels lies"""
LEFT_OUT = (
    "Liger-Kernel's fused kernels are left out, since they can't be used with this model or would read it otherwise; "
    "generation and readings take about a seventh longer on torch's own"
)
_refused: set[str] = set()
"""modules of families in which functions were replaced, and put back since a model was read otherwise"""
log = logging.getLogger(__name__)

Patch = Callable[[PreTrainedModel], None]


def fuse(model: PreTrainedModel) -> bool:
    """Put fused kernels into a model on a CUDA device; whether any are there now. What the library has for rotary positions is
    the first to go: Llama 4's takes one row's positions for those of all."""
    if model.device.type != "cuda" or not (patches := library(model.config.model_type)):
        return False
    if code_of(model).__name__ in _refused:  # what is replaced there would serve every model of the family
        patches = patches[1:]
    fits = any(switched(model, patch) for patch in patches)
    loading.note(model, "kernels", *([] if fits else [LEFT_OUT]))
    return fits


def library(family: str) -> list[Patch]:
    """The library's ways to patch a model of this family, the one that changes most first; none where it has no such family."""
    try:
        patches = importlib.import_module("liger_kernel.transformers.monkey_patch")
    except ImportError:
        return []
    if family not in patches.MODEL_TYPE_TO_APPLY_LIGER_FN:
        return []
    put = patches._apply_liger_kernel_to_instance
    return [functools.partial(put, **OFF), functools.partial(put, **OFF, rope=False)]


def switched(model: PreTrainedModel, patch: Patch) -> bool:
    """Patch a model, and let every patched function choose between what it was and what it is now; whether that gave
    the model's own states, in every manner of reading it. Where it doesn't, no function of its family is patched any more."""
    code, modules = code_of(model), [(m, dict(vars(m))) for m in model.modules()]
    names = {name: plain(value) for name, value in vars(code).items()}
    with left_out():
        before, bound, fits = states(model), closeness(model), False
    try:
        vars(code).update(names)
        patch(model)
        for module, was in modules:
            choose_in_module(module, was)
        choose_in_code(code, names)
        fits = close(states(model), before, bound) and freely_read(model)
    except failures() as error:
        log.info("fused kernels left out: %s", error)
    finally:
        if not fits:
            for module, was in modules:
                vars(module).clear()
                vars(module).update(was)
            if any(plain(value) is not value for value in vars(code).values()):
                _refused.add(code.__name__)
            vars(code).update(names)
            forget(model)
    return fits


def failures() -> tuple[type[Exception], ...]:
    """What a library's patch, its kernels or their compiler may raise."""
    try:
        compiler = importlib.import_module("triton.errors").TritonError
    except (ImportError, AttributeError):
        return ImportError, *FAILS
    return ImportError, *FAILS, compiler


def plain(value: Any) -> Any:
    """The function without kernels, of one that chooses; anything else as it is."""
    return vars(value).get(PLAIN, value) if isinstance(value, FunctionType) else value


def code_of(model: PreTrainedModel) -> ModuleType:
    """The module that a model's family is written in."""
    return sys.modules[type(body(model)).__module__]


def freely_read(model: PreTrainedModel) -> bool:
    """Whether a model may be read with its kernels in every manner in which it may be read without them. A kernel that reads
    a text well may still fail where each row asks with one token, and decoding without a cache takes a hundred times as long.
    """
    forget(model)
    found = allowed(way, model)
    if found == widest(model):
        return True
    with left_out():
        without = allowed(tried, model)
    lost = [f.name for f in fields(Way) if getattr(found, f.name) < getattr(without, f.name)]
    if lost:
        log.info("fused kernels left out: with them this model can't be read %s", ", ".join(lost))
    return not lost


def allowed(ask: Callable[[PreTrainedModel], Way], model: PreTrainedModel) -> Way:
    """A model's way; nothing where it can't be read at all, which is told when it is asked for again."""
    try:
        return ask(model)
    except UserError:
        return Way()


def choose_in_module(module: nn.Module, was: dict[str, Any]) -> None:
    """A forward that the patch bound to this module is used where nothing is differentiated."""
    new = vars(module).get("forward")
    if new is not None and new is not was.get("forward"):
        old = was.get("forward") or functools.partial(type(module).forward, module)
        module.forward = dispatched(old, new)  # type: ignore[method-assign]


def choose_in_code(code: ModuleType, was: dict[str, Any]) -> None:
    """Functions that the patch replaced in the family's code choose too; classes are put back, since they serve models
    that are yet to be made, on whatever device."""
    for name, old in was.items():
        new = vars(code)[name]
        if new is not old:
            new = by_step(new) if name == ROTARY else new
            setattr(code, name, dispatched(old, new) if isinstance(old, FunctionType) else old)


def dispatched(old: Callable[..., Any], new: Callable[..., Any]) -> Callable[..., Any]:
    """`new` on a CUDA device where nothing is differentiated, otherwise `old`."""

    @functools.wraps(old)
    def either(first: Tensor, *args: Any, **kwargs: Any) -> Any:
        return (new if usable(first) else old)(first, *args, **kwargs)

    setattr(either, PLAIN, old)
    return either


def by_step(rotary: Callable[..., Any]) -> Callable[..., Any]:
    """A rotary function given queries and keys whose memory holds a step's heads together, where there is one step.

    Liger-Kernel's asks torch for tensors laid out by row, step, head, and goes from row to row by the stride of a step. Of a
    single step any stride counts as laid out so: a norm over (row, head, step), as Gemma 3 has, leaves that of a head, and the
    kernel then reads the second row one head after the first.
    """

    @functools.wraps(rotary)
    def laid_out(query: Tensor, key: Tensor, *args: Any, **kwargs: Any) -> Any:
        return rotary(one_step(query), one_step(key), *args, **kwargs)

    return laid_out


def one_step(given: Float[Tensor, "b h t d"]) -> Float[Tensor, "b h t d"]:
    """The same memory; where t is 1, its stride is that of a whole row's heads."""
    return (
        given.squeeze(2).unsqueeze(1).transpose(1, 2) if given.dim() == 4 and given.shape[2] == 1 else given
    )


_left_out: list[bool] = []
_training: list[bool] = []


def left_out() -> AbstractContextManager[None]:
    """Let no fused kernel serve anything."""
    return marked(_left_out)


def in_training() -> AbstractContextManager[None]:
    """Let fused kernels serve passes that are differentiated too."""
    return marked(_training)


@contextmanager
def marked(marks: list[bool]) -> Iterator[None]:
    """One mark more for a while."""
    marks.append(True)
    try:
        yield
    finally:
        marks.pop()


def usable(given: Tensor) -> bool:
    """Whether fused kernels are to serve this call."""
    return given.is_cuda and wanted()


def wanted() -> bool:
    """Whether fused kernels are to serve what is computed just now."""
    return not _left_out and (bool(_training) or not torch.is_grad_enabled())


@torch.no_grad()
def states(model: PreTrainedModel) -> Float[Tensor, "t d"]:
    """Final states over some fixed tokens."""
    draw = torch.Generator().manual_seed(0)
    top = model.config.get_text_config(decoder=True).vocab_size
    ids = torch.randint(1, top, (1, TRIED), generator=draw).to(model.device)
    return forward(model, ids, use_cache=False)[0][0].float()


def close(found: Float[Tensor, "t d"], expected: Float[Tensor, "t d"], bound: float) -> bool:
    """Whether each position's states are one up to `bound`, relative to what is expected."""
    gap = (found - expected).norm(dim=-1) / expected.norm(dim=-1)
    return bool((gap <= bound).all())
