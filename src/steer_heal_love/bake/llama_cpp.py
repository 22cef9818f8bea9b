"""What llama.cpp reads: the adapter as a GGUF LoRA, a steering vector as a GGUF control vector.

llama.cpp numbers decoder layers from 0 as we do and adds `direction.N` to the output of layer N, but has no place for
layer 0. Llama and its like keep the rows of the query and key matrices in another order there (rotary pairs side by side), so
the B factors of those modules are reordered with them. Which families do is known for some; others are refused.
Needs the package `gguf`, which the extra `smollm2` brings.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedConfig

from steer_heal_love.bake import padded
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.records import whole
from steer_heal_love.ground.shown import shown
from steer_heal_love.ground.untrusted.directions import directions
from steer_heal_love.ground.untrusted.gguf import gguf as read_gguf
from steer_heal_love.nouns import Adapter

OTHER_NAMES = {"mistral": "llama", "gemma3_text": "gemma3", "phi": "phi2"}
"""architectures that GGUF calls differently than transformers"""

PAIRED = {"llama", "granite", "granitemoe", "smollm3", "olmo", "arcee"}
"""architectures whose query and key rows llama.cpp's converter reorders"""
AS_THEY_ARE = {
    "qwen2",
    "qwen2moe",
    "qwen3",
    "qwen3moe",
    "gemma",
    "gemma2",
    "gemma3",
    "phi2",
    "phi3",
    "stablelm",
    "olmo2",
    "olmoe",
    "starcoder2",
    "nemotron",
    "exaone4",
    "seed_oss",
    "command-r",
    "cohere2",
    "gpt2",
}
"""architectures whose matrices it keeps in their order"""


def library() -> Any:
    try:
        import gguf
    except ImportError as e:
        raise UserError("GGUF files need the package gguf: pip install 'steer-heal-love[smollm2]'.") from e
    return gguf


def save_lora(adapter: Adapter, config: PreTrainedConfig, file: Path) -> None:
    """`llama-cli --lora FILE` on the same base. Raises `UserError` for an architecture or module GGUF has no name for."""
    gguf, text = library(), config.get_text_config()
    arch = OTHER_NAMES.get(text.model_type, text.model_type)
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    if arch not in kinds:
        raise UserError(f"GGUF has no architecture {arch!r}; it knows {', '.join(sorted(kinds))}.")
    if arch not in PAIRED | AS_THEY_ARE:
        raise UserError(
            f"{arch}: it is not known here whether llama.cpp keeps this architecture's matrices in their order. Export the "
            "adapter as PEFT, and convert it with llama.cpp's own convert_lora_to_gguf.py."
        )
    names, adapter = gguf.get_tensor_name_map(kinds[arch], text.num_hidden_layers), padded(adapter)
    tensors: dict[str, Tensor] = {}
    for module, (a, b) in adapter.factors.items():
        name = names.get_name(f"{module}.weight", try_suffixes=(".weight",))
        if name is None:
            raise UserError(f"GGUF has no name for {module} of {arch}.")
        if arch in PAIRED and module.endswith(("q_proj", "k_proj")):
            heads = text.num_attention_heads if module.endswith("q_proj") else text.num_key_value_heads
            b = paired(b, heads)
        tensors |= {f"{name}.lora_a": a, f"{name}.lora_b": b}
    keys = gguf.Keys.Adapter
    metadata: dict[str, str | int | float] = {
        "general.type": "adapter",
        keys.TYPE: "lora",
        keys.LORA_ALPHA: adapter.scaling * adapter.rank,
    }
    write(file, arch, metadata, tensors)


def paired(rows: Float[Tensor, "o r"], heads: int) -> Float[Tensor, "o r"]:
    """Each head's rows with the two halves that rotary embedding turns together interleaved."""
    return rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def save_control_vector(directions: Mapping[int, Float[Tensor, " d"]], hint: str, file: Path) -> None:
    """`llama-cli --control-vector-scaled FILE DOSE`. Raises `UserError` for a direction at layer 0."""
    if 0 in directions:
        raise UserError(
            "llama.cpp cannot steer at layer 0; read the vector from later layers (vector.layers)."
        )
    metadata: dict[str, str | int | float] = {
        "controlvector.model_hint": hint,
        "controlvector.layer_count": len(directions),
    }
    write(file, "controlvector", metadata, {f"direction.{i}": v for i, v in directions.items()})


def load_control_vector(file: Path) -> dict[int, Float[Tensor, " d"]]:
    """The directions by layer. Raises `UserError` where the file is no GGUF control vector of F32 or F16 values."""
    name = str(file)
    found = read_gguf(file, name)
    arch = found.fields.get("general.architecture")
    if arch != "controlvector":
        names = ", ".join(sorted(found.tensors)[:3]) or "no tensors"
        raise UserError(
            f"{shown(file)}: GGUF, but not a control vector: {arch!r:.60} with {shown(names)[:200]}."
        )
    tensors = {key: torch.from_numpy(values) for key, values in found.tensors.items()}
    return directions(tensors, name, prefix="direction", first=1)


def write(
    file: Path, arch: str, metadata: Mapping[str, str | int | float], tensors: Mapping[str, Tensor]
) -> None:
    """Written beside and renamed, fp32."""
    writer = library().GGUFWriter(None, arch)
    add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}
    for key, value in metadata.items():
        add[type(value)](key, value)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor.detach().float().cpu().contiguous().numpy())
    with whole(file) as scratch:
        writer.write_header_to_file(scratch)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
