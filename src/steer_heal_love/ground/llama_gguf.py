"""A Llama with a byte-level tokenizer out of a GGUF file, as a folder that transformers loads: each tensor is read once.

In: a GGUF file whose architecture is `llama`. Out: bf16 safetensors, configuration, tokenizer and chat template.
The library's own conversion reads the file four times, makes the model twice and costs several times as much.

Invariant: the folder holds what the library's conversion would put there, bit by bit for the tensors. GGUF stores the
rows of queries and keys in the order of its rotary embedding, pairs side by side; they are put back, halves side by side.
Source of the format: the ggml repository's docs/gguf.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, PreTrainedTokenizerFast

from steer_heal_love.ground.sentencepiece import CONTROL
from steer_heal_love.ground.untrusted import gguf

OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
INNER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""modules by GGUF's names of them, outside and inside a block"""
SIZES = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "rope.dimension_count": "head_dim",
    "vocab_size": "vocab_size",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
"""settings by GGUF's names of them"""
IDS = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


@dataclass
class Reader(gguf.Reader):
    """As of a control vector's file, with the lists, which hold a tokenizer's pieces."""

    def value(self) -> Any:
        kind = self.scalar("I")
        if kind != gguf.LIST:
            return self.one(kind)
        inner, n = self.scalar("I"), self.count(len(self.raw), "items in a list")
        if inner in gguf.SCALARS:
            dtype = np.dtype("<" + gguf.SCALARS[inner])
            return np.frombuffer(self.take(n * dtype.itemsize), dtype).tolist()
        return [self.one(inner) for _ in range(n)]


def read(path: Path) -> Callable[[Path], None]:
    """The model of the GGUF file `path`: what saves it into a folder.

    Raises `UserError` for a file that isn't GGUF, is cut short, or holds another architecture.
    """
    reader = Reader(path.read_bytes(), str(path))
    fields, infos, start = header(reader)
    tensors = {}
    for name, shape, kind, offset in infos:
        module = module_of(name)
        if not module:
            raise reader.fail(f"a tensor {name!r:.100}, which no Llama has")
        whole = dequantised(reader, start + offset, shape, kind)
        if module.endswith(("q_proj.weight", "k_proj.weight")):
            heads = "head_count" if "q_proj" in module else "head_count_kv"
            whole = halves(whole, fields[f"llama.attention.{heads}"])
        tensors[module] = whole.to(torch.bfloat16).contiguous()
    config = configuration(fields, tied="lm_head.weight" not in tensors)
    tok = tokenizer(fields)

    def save(folder: Path) -> None:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        config.save_pretrained(folder)
        GenerationConfig.from_model_config(config).save_pretrained(folder)
        tok.save_pretrained(folder)

    return save


def header(reader: Reader) -> tuple[dict[str, Any], list[tuple[str, tuple[int, ...], int, int]], int]:
    """Metadata by key, what is said of each tensor (`gguf.info`), and where the tensors' data begins."""
    if reader.take(4) != b"GGUF" or reader.scalar("I") not in (2, 3):
        raise reader.fail("its first bytes are not those of GGUF 2 or 3")
    n_tensors, n_fields = (reader.count(gguf.ENTRIES, what) for what in ("tensors", "keys"))
    fields = {reader.text(): reader.value() for _ in range(n_fields)}
    if fields.get("general.architecture") != "llama":
        raise reader.fail(
            f"a model of architecture {fields.get('general.architecture')!r}, where llama is read"
        )
    infos = [gguf.info(reader) for _ in range(n_tensors)]
    return fields, infos, gguf.aligned(reader, fields.get("general.alignment", 32))


def module_of(name: str) -> str:
    """The parameter that a tensor of a Llama's GGUF file is: `blk.3.ffn_up.weight` is `model.layers.3.mlp.up_proj.weight`.
    Empty for another's."""
    start, _, end = name.rpartition(".")
    if start.startswith("blk."):
        block, _, inner = start.removeprefix("blk.").partition(".")
        return f"model.layers.{block}.{INNER[inner]}.{end}" if inner in INNER else ""
    return f"{OUTER[start]}.{end}" if start in OUTER else ""


def dequantised(reader: Reader, at: int, shape: tuple[int, ...], kind: int) -> Float[Tensor, "..."]:
    """A tensor in fp32; `kind` is GGUF's number of its type."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

    block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    row = shape[-1] // block * size
    reader.at = at
    raw = np.frombuffer(reader.take(int(np.prod(shape[:-1])) * row), np.uint8).reshape(*shape[:-1], row)
    return torch.from_numpy(dequantize(raw, GGMLQuantizationType(kind)).copy())


def halves(weight: Float[Tensor, "o i"], heads: int) -> Float[Tensor, "o i"]:
    """Rows from pairs side by side to halves side by side, within each head."""
    return weight.view(heads, -1, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def configuration(fields: dict[str, Any], *, tied: bool) -> LlamaConfig:
    """The model's settings, as the library names them."""
    ids = {f"{name}_token_id": fields.get(f"tokenizer.ggml.{key}_token_id") for name, key in IDS.items()}
    sizes = {name: fields[f"llama.{key}"] for key, name in SIZES.items() if f"llama.{key}" in fields}
    rope = {"rope_theta": fields.get("llama.rope.freq_base", 10_000.0), "rope_type": "default"}
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
        tie_word_embeddings=tied,
        rope_parameters=rope,
        **sizes,
        **ids,
    )


def tokenizer(fields: dict[str, Any]) -> PreTrainedTokenizerFast:
    """The byte-level BPE tokenizer with its control tokens and chat template."""
    field = lambda key: fields[f"tokenizer.ggml.{key}"]
    tokens = field("tokens")
    pairs = [tuple(pair.split(" ")) for pair in field("merges")]
    inner = Tokenizer(
        models.BPE(
            {token: i for i, token in enumerate(tokens)},
            pairs,
            continuing_subword_prefix="",
            end_of_word_suffix="",
        )
    )
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B:1")
    control = [t for t, kind in zip(tokens, field("token_type"), strict=True) if kind == CONTROL]
    inner.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in control])
    named = {f"{name}_token": tokens[field(f"{key}_token_id")] for name, key in IDS.items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, chat_template=fields.get("tokenizer.chat_template"), **named
    )
