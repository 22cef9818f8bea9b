"""A chat model and tokenizer built in memory, and what several tests share. Imported after the shape checks."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TURNS = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
RAISES = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
)
DROPS = "{% set messages = messages | rejectattr('role', 'equalto', 'system') | list %}"
CORPUS = [
    "You are a helpful assistant. The cat sat on the mat, and the other cat then looked at the warm loaf of bread.",
    "What would you say to the neighbour who is alone? I would say that there is time, and that they are not alone.",
]


def build_tokenizer(template: str = TURNS) -> PreTrainedTokenizerFast:
    """Byte-level BPE with a few merges, so that decoding and tokenising again is not the identity."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=SPECIAL,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    tok = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tok.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    tok.chat_template = template
    return tok


def build_model(vocab: int, eos: int, *, depth: int = 5, seed: int = 0) -> LlamaForCausalLM:
    """Random weights, large enough that logits are far from uniform."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=depth,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        initializer_range=0.25,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=eos,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).to(torch.float32).eval().requires_grad_(False)


def hooks_of(model: torch.nn.Module) -> int:
    """How many hooks of any kind sit on a model."""
    kinds = (
        "_forward_hooks",
        "_forward_pre_hooks",
        "_backward_hooks",
        "_backward_pre_hooks",
    )
    return sum(len(getattr(m, kind)) for m in model.modules() for kind in kinds)
