"""Tiny random models of the library's own classes, a family each: `zoo.toml` says which, `build(name)` makes one.

Nothing is downloaded, and every window is shorter than the prompts that the checks read.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from tiny_model import RAISES, TURNS, build_tokenizer

DEPTH = 4


@dataclass(frozen=True)
class Family:
    """A class, its configuration's class, and what is set in it; see `zoo.toml`."""

    kind: str
    config: str
    settings: dict[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    seed: int = 0
    """of the weights: another where greedy text would be one token for ever"""


ZOO = {
    name: Family(**entry)
    for name, entry in tomllib.loads((Path(__file__).parent / "zoo.toml").read_text(encoding="utf-8")).items()
}


def common(vocab: int, eos: int) -> dict[str, Any]:
    """What all families are set to, as far as their configurations take it."""
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": DEPTH, "num_attention_heads": 4}
    tokens = {"vocab_size": vocab, "bos_token_id": None, "eos_token_id": eos, "pad_token_id": 0}
    rest = {"num_key_value_heads": 2, "max_position_embeddings": 4096, "tie_word_embeddings": False}
    return sizes | tokens | rest | {"initializer_range": 0.25}


def build(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A family's tiny model in fp32, random everywhere, and the tokenizer that goes with it."""
    family = ZOO[name]
    tok = build_tokenizer(RAISES + TURNS if "Gemma" in family.kind else TURNS)
    config = configured(family, len(tok), tok.eos_token_id)
    torch.manual_seed(family.seed)
    model = getattr(transformers, family.kind)(config).to(torch.float32).eval()
    lively(model, family.seed)
    if model.generation_config is not None:
        model.generation_config.eos_token_id = tok.eos_token_id
    return model, tok


def configured(family: Family, vocab: int, eos: int) -> PreTrainedConfig:
    """The library's configuration of a family."""
    return getattr(transformers, family.config)(**settings(family, common(vocab, eos)))


def settings(family: Family, base: dict[str, Any]) -> dict[str, Any]:
    """The configuration's arguments."""
    own = valued(family.settings)
    vocab = base["vocab_size"] + 8 * bool(family.marks)
    base = {k: v for k, v in base.items() if k not in family.without} | {"vocab_size": vocab}
    marks = {name: vocab - 8 + i for i, name in enumerate(family.marks)}
    inner = {part: layered(base | own.get(part, {})) for part in family.text}
    return (own | inner | marks) if family.text else layered(base | own)


def layered(text: dict[str, Any]) -> dict[str, Any]:
    """A second table of embeddings, where there is one, is as long as the first."""
    more = {"vocab_size_per_layer_input": text["vocab_size"]} if "hidden_size_per_layer_input" in text else {}
    return text | more


def valued(found: Any) -> Any:
    """TOML has no word for no value."""
    if isinstance(found, dict):
        return {k: valued(v) for k, v in found.items()}
    return None if found == "none" else found


@torch.no_grad()
def lively(model: PreTrainedModel, seed: int) -> None:
    """No vector of a model stays all ones or zeros, where a term of it would be inert; none is so large that it drowns
    the rest. What decays a state keeps its own start."""
    draw = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if name.rpartition(".")[2] in ("A_log", "dt_bias", "D"):
            continue
        noise = torch.randn(p.shape, generator=draw)
        if p.ndim == 1:
            p.add_(0.1 * noise)
        elif not (torch.isfinite(p).all() and 0 < p.std() < 1):
            p.copy_(0.2 * noise)
        if "embed_tokens" in name and "emma" in type(model).__name__:
            p.mul_(0.4)
