"""A model's parts: decoder body, decoder layers, head; and what a layer gives out.

Invariant, checked on load: head(body(ids)) equals the model's own logits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from steer_heal_love.ground.errors import UserError

_own_head: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def body(model: PreTrainedModel) -> nn.Module:
    """The decoder without its head: ids → last hidden state, final norm included."""
    found = model.get_decoder()
    if found is model:
        # The library's lookup knows the usual names only; Llama 4's text model is `model` under another prefix.
        inner = [m for m in model.children() if isinstance(m, PreTrainedModel)]
        found = inner[0] if inner else model
    return found


def layers(model: PreTrainedModel) -> nn.ModuleList:
    """Decoder layers in order, numbered from 0."""
    found = getattr(body(model), "layers", None)
    if found is None:
        depth = model.config.get_text_config(decoder=True).num_hidden_layers
        lists = [m for m in body(model).modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
        if not lists:
            raise UserError(f"{type(model).__name__}: no list of {depth} decoder layers to hook.")
        found = lists[0]
    return found


def band(model: PreTrainedModel, share: tuple[float, float]) -> list[int]:
    """Layer numbers from share[0] to share[1] of the depth: (0.4, 0.6) of 30 layers is 12…17."""
    depth = len(layers(model))
    return list(range(round(share[0] * depth), max(round(share[1] * depth), round(share[0] * depth) + 1)))


Edit = Callable[[Tensor], Tensor]
"""final logits → final logits"""
Voice = Callable[[Float[Tensor, "n d"]], Float[Tensor, "n v"]]
"""logits of final hidden states, as `narrow_head` gives them"""
_edits: WeakKeyDictionary[nn.Module, list[Edit]] = WeakKeyDictionary()


def edits(model: nn.Module) -> list[Edit]:
    """What is done to this model's final logits just now, in order; contexts in `ground.hooks` add to it."""
    return _edits.setdefault(model, [])


def head(model: PreTrainedModel, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n v"]:
    """fp32 logits of final hidden states, with the scalings that Cohere, Granite and Gemma apply, and active edits.

    Where `check_head` found that an architecture scales its logits in another way, its own code is asked.
    """
    return narrow_head(model, hidden).float()


def narrow_head(model: PreTrainedModel, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n v"]:
    """`head`, in the output layer's own type where nothing is done to its values: for readers that widen each one themselves,
    and so needn't have all of them copied."""
    if _own_head.get(model, False):
        return edited(asked(model, hidden), edits(model))
    layer = model.get_output_embeddings()
    return finished(model, layer(in_type_of(layer, hidden)), edits(model))


def in_type_of(layer: nn.Module, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """States as the output layer takes them: some families, such as Mamba, keep their residual stream in fp32 above it."""
    weight = layer.weight
    return hidden.to(weight.dtype) if weight.is_floating_point() else hidden


def edited(logits: Float[Tensor, "n v"], by: list[Edit]) -> Float[Tensor, "n v"]:
    for edit in by:
        logits = edit(logits)
    return logits


def finished(model: PreTrainedModel, raw: Float[Tensor, "n v"], by: list[Edit]) -> Float[Tensor, "n v"]:
    """The output layer's values, scaled and edited in fp32; as they are where the model and its contexts do neither."""
    logits = scaled(model, raw)
    return edited(logits.float(), by) if by else logits


def scaled(model: PreTrainedModel, raw: Float[Tensor, "n v"]) -> Float[Tensor, "n v"]:
    """What an architecture does to the output layer's values, in fp32; as they are where it does nothing."""
    config = model.config.get_text_config(decoder=True)
    if scale := getattr(config, "logit_scale", None):
        raw = raw.float() * scale
    if divisor := getattr(config, "logits_scaling", None):
        raw = raw.float() / divisor
    if cap := getattr(config, "final_logit_softcapping", None):
        raw = cap * torch.tanh(raw.float() / cap)
    return raw


def bare(model: PreTrainedModel) -> Voice:
    """`head` without what active contexts add to the output layer or the logits: how the base speaks its own states."""
    return _spoken(model, [], [])


def voice(model: PreTrainedModel) -> Voice:
    """`head` as it is now, with what active contexts add; it stays so when they are left."""
    return _spoken(model, list(model.get_output_embeddings()._forward_hooks.values()), list(edits(model)))


def _spoken(model: PreTrainedModel, hooks: list[Callable[..., Any]], by: list[Edit]) -> Voice:
    layer = model.get_output_embeddings()

    def logits(hidden: Tensor) -> Tensor:
        if _own_head.get(model, False):
            return edited(asked_with(model, hidden, hooks), by)
        hidden = in_type_of(layer, hidden)
        raw = layer.forward(hidden)
        for hook in hooks:
            changed = hook(layer, (hidden,), raw)
            raw = raw if changed is None else changed
        return finished(model, raw, by)

    return logits


def asked(model: PreTrainedModel, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n v"]:
    """What the model's own forward makes of final hidden states, its decoder standing aside meanwhile."""
    with standing_aside(body(model), hidden):
        ids = torch.ones(1, len(hidden), dtype=torch.long, device=hidden.device)
        return model.forward(input_ids=ids, use_cache=False).logits[0].float()  # type: ignore[no-any-return]


class Alone(BaseModelOutputWithPast):
    """A decoder's output that has nothing but its hidden states, and says None of all else."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def asked_with(
    model: PreTrainedModel, hidden: Float[Tensor, "n d"], hooks: list[Callable[..., Any]]
) -> Float[Tensor, "n v"]:
    """`asked` with these hooks on the output layer in place of its own."""
    layer = model.get_output_embeddings()
    before = layer._forward_hooks
    layer._forward_hooks = OrderedDict(enumerate(hooks))
    try:
        return asked(model, hidden)
    finally:
        layer._forward_hooks = before


@contextmanager
def standing_aside(decoder: nn.Module, hidden: Float[Tensor, "n d"]) -> Iterator[None]:
    """A decoder that gives `hidden` for whatever it is asked."""
    with giving(decoder, Alone(last_hidden_state=hidden.unsqueeze(0))):
        yield


@contextmanager
def giving(module: nn.Module, out: Any) -> Iterator[None]:
    """A module that gives `out` for whatever it is asked; its hooks still run."""
    before = module.__dict__.get("forward")
    module.forward = lambda *_, **__: out  # type: ignore[method-assign]
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before


@torch.no_grad()
def check_head(model: PreTrainedModel) -> None:
    """Raise unless logits recomputed from hidden states are the model's own."""
    ids = torch.arange(1, 9, device=model.device).unsqueeze(0)
    own = model(ids).logits[0].float()
    hidden = body(model)(ids).last_hidden_state[0]
    gap = lambda: (own - head(model, hidden)).abs().max().item() / own.abs().max().item()
    if not gap() <= 0.05:
        _own_head[model] = True
        if not gap() <= 0.05:
            raise UserError(
                f"{type(model).__name__}: logits recomputed from hidden states differ by {gap():.3g} of the largest; "
                "this architecture post-processes its logits in a way that is not known here."
            )


def stream(model: PreTrainedModel, output: Any) -> Float[Tensor, "b s d"]:
    """The residual stream in what a decoder layer gives out: of several side by side the active one, or their mean."""
    hidden = output[0] if isinstance(output, tuple) else output
    if hidden.ndim == 3:
        return hidden  # type: ignore[no-any-return]
    active = active_stream(model)
    return hidden.mean(2) if active is None else hidden[active]  # type: ignore[no-any-return]


def moved(model: PreTrainedModel, output: Any, shift: Float[Tensor, "#b #s d"]) -> Any:
    """A layer's output with `shift` added to its residual stream: to the active one of several, or to each."""
    hidden = output[0] if isinstance(output, tuple) else output
    active = active_stream(model)
    if hidden.ndim == 3:
        there = hidden + shift.to(hidden.dtype)
    elif active is None:
        there = hidden + shift.to(hidden.dtype).unsqueeze(2)
    else:
        there = hidden.clone()
        there[active] = hidden[active] + shift.to(hidden.dtype)
    return (there, *output[1:]) if isinstance(output, tuple) else there


def active_stream(model: PreTrainedModel) -> int | None:
    """Which of the streams [k, b, s, d] is computed on (AltUp, arXiv 2301.13310); None where all are alike, [b, s, k, d]."""
    return getattr(model.config.get_text_config(decoder=True), "altup_active_idx", None)
