"""Chat models to measure on: random weights of a known model's shape, drawn on the device, or the embedded model.

Speed depends on shapes, not on what the weights say. The tokenizer is the embedded model's: its ids fit every
vocabulary here. Invariant: a model is set up as `models.load` sets up a loaded one.
"""

from __future__ import annotations

import copy

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3TextConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen3Config,
)

from steer_heal_love.ground import models, records
from steer_heal_love.ground.devices import known_dtype


def qwen3(width: int, layers: int, heads: int, inner: int, *, vocabulary: int = 151_936) -> Qwen3Config:
    return Qwen3Config(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=inner,
        vocab_size=vocabulary,
        max_position_embeddings=40960,
        tie_word_embeddings=True,
    )


CONFIGS = {
    "qwen3-1.7b": qwen3(2048, 28, 16, 6144),
    "qwen3-4b": qwen3(2560, 36, 32, 9728),
    "qwen3-4b-49k": qwen3(2560, 36, 32, 9728, vocabulary=49_152),
    "qwen3-8b": qwen3(4096, 36, 32, 12288),
    "gemma3-4b": Gemma3TextConfig(
        hidden_size=2560,
        num_hidden_layers=34,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=256,
        intermediate_size=10240,
        vocab_size=262208,
        sliding_window=1024,
        tie_word_embeddings=True,
    ),
    "gemma3-27b": Gemma3TextConfig(
        hidden_size=5376,
        num_hidden_layers=62,
        num_attention_heads=32,
        num_key_value_heads=16,
        head_dim=128,
        intermediate_size=21504,
        vocab_size=262208,
        sliding_window=1024,
        tie_word_embeddings=True,
    ),
    "tiny": Qwen3Config(
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=128,
        vocab_size=0,
        max_position_embeddings=40960,
        tie_word_embeddings=True,
    ),
}
"""`tiny` takes the tokenizer's own vocabulary. `qwen3-4b-49k` has a smaller vocabulary than the real one, and `qwen3-8b` one head
for both ends, so that only one thing differs."""
NAMES = (*CONFIGS, "smollm2")


def build(
    shape: str, *, device: str, tokenizer: str = "smollm2", seed: int = 0, dtype: str = "auto"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model of that shape on `device`, and a tokenizer (a folder, or the embedded model's).

    `dtype`: in what its weights are drawn; how a model is set up depends on it, so don't convert it afterwards.

    Raises `ValueError` when the tokenizer has more tokens than the shape, and for weights that stayed zero.
    """
    if shape == "smollm2":
        return models.load("smollm2", device=device, dtype=dtype)
    tok = AutoTokenizer.from_pretrained(models.source(tokenizer))
    models.check_template(tok, tokenizer)
    config = copy.deepcopy(CONFIGS[shape])
    config.vocab_size = config.vocab_size or len(tok)
    if len(tok) > config.vocab_size:
        raise ValueError(
            f"{shape}: {len(tok)} tokens in the tokenizer, {config.vocab_size} in the vocabulary."
        )
    if device == "cpu":
        records.tune_cpu_memory()
    torch.manual_seed(seed)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            config, dtype=known_dtype(dtype, device), attn_implementation="eager" if device == "cpu" else None
        )
    models.attend(model, device)
    if flat := [n for n, p in model.named_parameters() if p.dim() > 1 and not p.any()]:
        raise ValueError(f"{shape}: weights that were never drawn: {flat[:3]} …")
    return models.placed(model, device), tok
