"""A constant at some layers' outputs, as the bias of what writes there last: the same model without hooks.

    h ← h + W x  and then  h ← h + c   is   h ← h + W x + c

so c is the bias of a layer's last linear module, where what that module gives reaches the stream as it is: neither scaled nor
normalised after, and called for every token. That is asked of the model, by comparing its logits with those under hooks.
A module without a place for a bias gets one where the model's own configuration has a switch for it, so that the saved folder
needs no code but the library's; whatever else the switch adds is zero.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from steer_heal_love.ground import linear
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.hooks import added, once
from steer_heal_love.ground.parts import layers
from steer_heal_love.ground.weights import put

LIKE, ROUNDING = 1e-3, 1e-4
"""largest distance of the two models' logits: as a share of what steering moves them, and beside it of the largest logit"""
READ = 24
"""tokens on which they are compared"""


@contextmanager
def in_biases(model: PreTrainedModel, shifts: Mapping[int, Float[Tensor, " d"]]) -> Iterator[None]:
    """The model with each shift in the bias of that layer's last writer, and a configuration that says so; as before after.

    Raises `UserError` where a writer has no place for a bias, or where the model isn't the one under hooks.
    """
    want = steered(model, shifts)
    plain = steered(model, {})
    names = {index: last_writer(model, index) for index in shifts}
    with ExitStack() as stack:
        stack.enter_context(once(model, "folded"))
        stack.enter_context(with_places(model, sorted(names.values())))
        for index, name in names.items():
            bias: Tensor = model.get_submodule(name).bias  # type: ignore[assignment]
            before = bias.detach().clone()
            stack.callback(put, bias, before)
            put(bias, before + shifts[index].to(bias))
        found = steered(model, {})
        if not near(found, want, plain):
            raise UserError(
                f"{type(model).__name__}: the steered model can't be written without hooks. With the vector as the bias of "
                f"{', '.join(sorted(names.values()))} its logits differ from the steered ones by {gap(found, want):.3g}, "
                f"where steering moves them by {gap(want, plain):.3g}: what these modules give is scaled or normalised "
                "before it reaches the residual stream. Export the healed model instead."
            )
        yield


@torch.no_grad()
def steered(model: PreTrainedModel, shifts: Mapping[int, Tensor]) -> Float[Tensor, "s v"]:
    """fp32 logits of a few drawn tokens with the shifts added by hooks."""
    with added(model, shifts, 1.0):
        return model(input_ids=read_ids(model), use_cache=False).logits[0].float()  # type: ignore[no-any-return]


def read_ids(model: PreTrainedModel) -> Int[Tensor, "1 s"]:
    """The drawn tokens on which two models are compared."""
    top = model.config.get_text_config(decoder=True).vocab_size
    return torch.randint(1, top, (1, READ), generator=torch.Generator().manual_seed(0)).to(model.device)


def near(found: Tensor, want: Tensor, plain: Tensor) -> bool:
    """Whether logits are those wanted, as far as rounding lets them be; `plain` are the unsteered ones."""
    return gap(found, want) <= LIKE * gap(want, plain) + ROUNDING * want.abs().max().item()


def gap(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


def last_writer(model: PreTrainedModel, index: int) -> str:
    """The name of the linear module of a decoder layer that is called last and gives vectors of the stream's width.

    Raises `UserError` where no module of the layer is one.
    """
    width = model.config.get_text_config(decoder=True).hidden_size
    block = layers(model)[index]
    met: list[nn.Module] = []
    inside = [m for m in block.modules() if linear.plain(m) and linear.shape(m)[0] == width]
    hooks = [m.register_forward_hook(lambda module, *_: met.append(module)) for m in inside]
    try:
        steered(model, {})
    finally:
        for hook in hooks:
            hook.remove()
    if not met:
        raise UserError(
            f"{type(model).__name__}: decoder layer {index} has no linear module that writes to the residual stream, so a "
            "steering vector can't be its bias. Export the healed model instead."
        )
    return next(name for name, module in model.named_modules() if module is met[-1])


@contextmanager
def with_places(model: PreTrainedModel, writers: list[str]) -> Iterator[None]:
    """Biases for these modules where they have none: zero, and gone again afterwards. Raises `UserError` where the model's
    configuration has no switch that adds them."""
    lacking = [name for name in writers if model.get_submodule(name).bias is None]
    if not lacking:
        yield
        return
    switch, new = switched(model, lacking)
    text = model.config.get_text_config(decoder=True)
    with ExitStack() as stack:
        stack.callback(setattr, text, switch, getattr(text, switch))
        setattr(text, switch, True)
        for name in new:
            module = model.get_submodule(name)
            weight: Tensor = module.weight  # type: ignore[assignment]
            zero = nn.Parameter(weight.new_zeros(linear.shape(module)[0]), requires_grad=False)
            stack.callback(partial(module.register_parameter, "bias", None))
            module.register_parameter("bias", zero)
        yield


def switched(model: PreTrainedModel, lacking: list[str]) -> tuple[str, list[str]]:
    """The setting of the model's configuration that gives all these modules a bias, and every module that it gives one."""
    text = model.config.get_text_config(decoder=True)
    switches = sorted(k for k, v in text.to_dict().items() if "bias" in k and v is False)
    have = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for switch in switches:
        config = copy.deepcopy(model.config)
        setattr(config.get_text_config(decoder=True), switch, True)
        with torch.device("meta"):
            other = type(model)(config)
        new = {name for name, _ in other.named_parameters(remove_duplicate=False)} - have
        wanted = {f"{name}.bias" for name in lacking}
        if wanted <= new and all(name.endswith(".bias") for name in new):
            return switch, sorted(name.removesuffix(".bias") for name in new)
    raise UserError(
        f"{type(model).__name__}: {lacking[0]} has no bias, and no setting of the model's configuration adds one "
        f"(tried: {', '.join(switches) or 'none has one'}), so the library could not load the steered weights. Export the healed "
        "model instead."
    )
