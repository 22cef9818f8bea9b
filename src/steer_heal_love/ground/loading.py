"""A model and its tokenizer off the disk or the hub, every way that this can go wrong ended in a `UserError`.

In: a name, a device, a number type, a chat template. Out: the pair as the library reads it, not yet placed on its
device (`models.load` does that), every weight accounted for, the chat template chosen.
"""

from __future__ import annotations

from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from steer_heal_love.ground import checkpoint, embedded, kinds, quiet, records, templates
from steer_heal_love.ground.devices import known_device, known_dtype

_notes: WeakKeyDictionary[nn.Module, dict[str, tuple[str, ...]]] = WeakKeyDictionary()
"""by model, then by topic: `template`, `weights`, `kernels`, `cache`"""


def note(model: nn.Module, topic: str, *sentences: str) -> None:
    """Keep what is odd about a model in this regard, but works, instead of what was kept before."""
    _notes.setdefault(model, {})[topic] = sentences


def notes(model: nn.Module, topic: str = "") -> tuple[str, ...]:
    """What was odd about a model when it was loaded, but works: a sentence each; in one regard, or in all."""
    found = _notes.get(model, {})
    return found.get(topic, ()) if topic else tuple(chain.from_iterable(found.values()))


def source(name: str) -> str:
    """The folder or hub id that a model's name stands for."""
    return embedded.MODELS[name].folder() if name in embedded.MODELS else name


def base_name(name: str) -> str:
    """What an exported adapter calls its base: the hub id where there is one."""
    return embedded.MODELS[name].hub if name in embedded.MODELS else name


def check_template(tok: PreTrainedTokenizerBase, name: str, template: str = "") -> list[str]:
    """Give the tokenizer its chat template: the one that was asked for, or else the model's own. Returns notes."""
    if not template and name in embedded.MODELS:
        template = embedded.MODELS[name].template
    return templates.choose(tok, template, name)


def load(
    name: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    template: str = "",
    trust_remote_code: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model, on the host unless its weights are quantised, and its tokenizer with its chat template."""
    device = known_device(device)
    wanted = known_dtype(dtype, device)
    where = source(name)
    checkpoint.refuse_folder(where)
    if device == "cpu":
        records.tune_cpu_memory()
    with embedded.quiet_transformers():
        with checkpoint.Reading(name):
            config = AutoConfig.from_pretrained(where, trust_remote_code=trust_remote_code)
            tok = AutoTokenizer.from_pretrained(where, trust_remote_code=trust_remote_code)
        quiet.settle(tok)
        checkpoint.refuse_quantised(name, config)
        on_template = check_template(tok, name, template)
        with checkpoint.Reading(name):
            model, info = kinds.auto_class(name, config).from_pretrained(
                where,
                dtype=wanted,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                attn_implementation="eager" if device == "cpu" else None,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused with their sizes, below
                **stored(checkpoint.quantised(config), device),
            )
    on_weights = checkpoint.refuse_lost(name, model, info) + checkpoint.refuse_vocabulary(name, model, tok)
    checkpoint.refuse_context(name, model)
    checkpoint.refuse_numbers(name, model)
    note(model, "template", *on_template)
    note(model, "weights", *on_weights)
    return model, tok


def stored(how: str, device: str) -> dict[str, Any]:
    """What else the library must be told to read weights that are quantised so."""
    if how == "bitsandbytes":
        return {"device_map": {"": device}}
    if how == "mxfp4":
        from transformers import Mxfp4Config

        return {"quantization_config": Mxfp4Config(dequantize=True)}
    return {}
