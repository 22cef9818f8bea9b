"""A PEFT folder from any hand, read as a plain LoRA or refused with what keeps it from being one.

In: `adapter_config.json` and `adapter_model.safetensors`. Out: an `Adapter` that changes a model as PEFT itself would.
What may be in either is listed here; whatever is not listed is refused, since a setting that nobody here knows may
change what the factors mean. Read exactly: rank r, scaling alpha/r or alpha/√r (rank-stabilised, arXiv 2312.03732), and
patterns of rank and alpha by plain module names. One scaling for all modules stays apart from the factors; where they
differ, it goes into each module's B.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.shown import shown
from steer_heal_love.ground.untrusted import json_object, whole_number
from steer_heal_love.ground.untrusted.tensors import tensors as read_tensors
from steer_heal_love.nouns import Adapter

PREFIX = "base_model.model."
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FACTOR = re.compile(rf"{re.escape(PREFIX)}([A-Za-z0-9_.]+)\.lora_(A|B)\.weight")
NUMBER = re.compile(r"(?:^|\.)(\d+)\.")
PLAIN_NAME = re.compile(r"\^?[A-Za-z0-9_.]+")
"""a pattern that names modules without the means of regular expressions, which a file could make endless"""
SHOWN = 6
"""mistakes told; the rest are counted"""
MERGE = (
    " PEFT's merge_and_unload makes a whole model of such an adapter and its base; give that model instead."
)
KEEPS_THE_BASE = (True, False, "gaussian", "eva", "orthogonal")
"""beginnings of training that leave the base's own weights as they were"""

Fine = Callable[[Any], bool]


def number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def anything(_value: Any) -> bool:
    return True


def nothing(value: Any) -> bool:
    """Off, or empty."""
    return value is None or value is False or value in ([], {}, "")


def names(value: Any) -> bool:
    return value is None or isinstance(value, str) or texts(value)


def texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


def layers(value: Any) -> bool:
    return value is None or whole_number(value) or (isinstance(value, list) and all(map(whole_number, value)))


def pattern(value: Any) -> bool:
    return value is None or (
        isinstance(value, dict)
        and all(PLAIN_NAME.fullmatch(k) and number(v) and v > 0 for k, v in value.items())
    )


BESIDE = """task_type auto_mapping base_model_name_or_path revision inference_mode peft_version lora_dropout
    megatron_core layers_pattern qalora_group_size eva_config runtime_config"""
KNOWN: dict[str, tuple[Fine, str]] = {
    "peft_type": (lambda v: v == "LORA", "'LORA'"),
    "r": (lambda v: whole_number(v) and 1 <= v <= 65_536, "a whole number from 1"),
    "lora_alpha": (number, "a number"),
    "use_rslora": (lambda v: v is None or isinstance(v, bool), "true or false"),
    "rank_pattern": (pattern, "plain module names with numbers above 0"),
    "alpha_pattern": (pattern, "plain module names with numbers above 0"),
    "init_lora_weights": (
        lambda v: any(v is k or (isinstance(v, str) and v == k) for k in KEEPS_THE_BASE),
        "one that leaves the base as it was; PiSSA, OLoRA and their like change its weights",
    ),
    "bias": (lambda v: v in (None, "none"), "'none'; it trains the base's biases"),
    "fan_in_fan_out": (lambda v: v is None or isinstance(v, bool), "true or false"),
    "target_modules": (names, "names of modules"),
    "exclude_modules": (lambda v: v is None or texts(v), "a list of modules' names"),
    "layers_to_transform": (layers, "layer numbers"),
    # What training needed, or what is said of where the adapter comes from.
    **dict.fromkeys(BESIDE.split(), (anything, "anything")),
}
"""the settings that are understood: whether a value is fine, and what is expected; any other must be off or empty"""
OFF = {
    "use_dora": "DoRA scales each row of the weight",
    "lora_bias": "it adds a trained bias",
    "modules_to_save": "whole modules are trained besides",
    "alora_invocation_tokens": "aLoRA begins at a token of the prompt",
    "trainable_token_indices": "embeddings of single tokens are trained",
    "layer_replication": "layers are there several times",
    "target_parameters": "parameters are adapted that belong to no linear module",
    "use_qalora": "QALoRA groups its inputs",
    "loftq_config": "LoftQ changes the base's weights",
    "corda_config": "CorDA changes the base's weights",
    "lora_ga_config": "LoRA-GA changes the base's weights",
    "megatron_config": "it is of a parallel Megatron model",
    "ensure_weight_tying": "it ties trained embeddings",
}
"""known settings that no plain LoRA has, and what each does"""


@dataclass(frozen=True)
class Settings:
    """What the factors are to be multiplied by, module by module."""

    r: int
    alpha: float
    root: bool
    ranks: Mapping[str, float]
    alphas: Mapping[str, float]
    targets: tuple[str, ...] | None
    excluded: tuple[str, ...]
    layers: tuple[int, ...] | None

    def rank(self, module: str) -> float:
        return matched(self.ranks, module, self.r)

    def scaling(self, module: str) -> float:
        rank = self.rank(module)
        return matched(self.alphas, module, self.alpha) / (math.sqrt(rank) if self.root else rank)


def matched(values: Mapping[str, float], module: str, otherwise: float) -> float:
    """The value of the first pattern that a module's name ends with, as PEFT looks for it."""
    found = (v for key, v in values.items() if re.match(rf"(.*\.)?({key})$", module))
    return next(found, otherwise)


def load(folder: Path) -> Adapter:
    """The LoRA in a PEFT folder, in fp32. Raises `UserError` with all that keeps it from being a plain one."""
    if not (folder / CONFIG).is_file():
        raise UserError(f"{shown(folder)}: no PEFT adapter there (no {CONFIG}).")
    if not (folder / WEIGHTS).is_file():
        raise UserError(
            f"{shown(folder)}: no PEFT adapter there (no {WEIGHTS}; pickled weights are never read)."
        )
    found = json_object(folder / CONFIG, str(folder / CONFIG))
    needed(folder, found.all(mistakes(found.data)), MERGE)
    how = settings(found.data)
    tensors, _ = read_tensors(folder / WEIGHTS, str(folder / WEIGHTS))
    factors, wrong = paired(tensors, how)
    needed(folder, wrong)
    return scaled(factors, how)


def needed(folder: Path, wrong: Sequence[str], then: str = "") -> None:
    """Raise `UserError` with what keeps an adapter from being a plain LoRA, in one line, and what to do `then`."""
    if wrong:
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise UserError(
            f"{shown(folder)}: a plain LoRA is needed, found {shown('; '.join(wrong[:SHOWN]))}{more}.{then}"
        )


def mistakes(config: Mapping[str, Any]) -> list[str]:
    """Every setting that is no plain LoRA's, a line each; for an adapter of another type, that alone."""
    kind = config.get("peft_type", "LORA")
    if isinstance(kind, str) and kind != "LORA":
        return [f"peft_type: {kind!r:.80}, another kind of adapter"]
    out = [f"{key}: missing" for key in ("peft_type", "r", "lora_alpha") if key not in config]
    for key, value in config.items():
        if key in KNOWN:
            fine, expected = KNOWN[key]
            if not fine(value):
                out.append(f"{key}: {value!r:.80}; expected {expected}")
        elif not nothing(value):
            why = OFF.get(key, "that setting is not known here, and may change what the factors mean")
            out.append(f"{key}: {value!r:.80}; {why}")
    return out


def settings(config: Mapping[str, Any]) -> Settings:
    targets, at = config.get("target_modules"), config.get("layers_to_transform")
    left_out = config.get("exclude_modules")
    return Settings(
        config["r"],
        float(config["lora_alpha"]),
        bool(config.get("use_rslora")),
        config.get("rank_pattern") or {},
        config.get("alpha_pattern") or {},
        tuple(targets) if isinstance(targets, list) else None,
        tuple(left_out) if isinstance(left_out, list) else (),
        None if at is None else tuple(at) if isinstance(at, list) else (at,),
    )


def paired(
    tensors: Mapping[str, Tensor], how: Settings
) -> tuple[dict[str, tuple[Tensor, Tensor]], list[str]]:
    """The factors by module, and every tensor that is none or doesn't fit."""
    by: dict[str, dict[str, Tensor]] = {}
    wrong = []
    for key, tensor in tensors.items():
        if found := FACTOR.fullmatch(key):
            by.setdefault(found[1], {})[found[2]] = tensor
        else:
            what = "embeddings are trained" if "embed" in key else "no factor of a linear module"
            wrong.append(f"tensor {key!r:.150}: {what}")
    for module, pair in by.items():
        wrong += [f"{module}: {what}" for what in pair_mistakes(module, pair, how)]
    if not by:
        wrong.append("no factors at all")
    return {m: (p["A"], p["B"]) for m, p in sorted(by.items()) if len(p) == 2}, wrong


def pair_mistakes(module: str, pair: Mapping[str, Tensor], how: Settings) -> Iterable[str]:
    """What is wrong with one module's factors."""
    if len(pair) < 2:
        yield f"lora_{'B' if 'A' in pair else 'A'} is missing"
        return
    a, b = pair["A"], pair["B"]
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
        yield f"factors of shapes {tuple(a.shape)} and {tuple(b.shape)} that don't multiply"
    elif a.shape[0] != how.rank(module):
        yield f"factors of rank {a.shape[0]}, the settings say {how.rank(module):g}"
    layer = NUMBER.search(module)
    if layer is None:
        yield "lies outside the decoder layers, as embeddings and the head do"
    elif how.layers is not None and int(layer[1]) not in how.layers:
        yield "its layer is not in layers_to_transform, so PEFT would leave it out"
    if how.targets is not None and not named(module, how.targets):
        yield "is not in target_modules, so PEFT would leave it out"
    if named(module, how.excluded):
        yield "is in exclude_modules, so PEFT would leave it out"


def named(module: str, names: Iterable[str]) -> bool:
    """Whether one of these names is the module's, or the end of it."""
    return any(module == name or module.endswith(f".{name}") for name in names)


def scaled(factors: Mapping[str, tuple[Tensor, Tensor]], how: Settings) -> Adapter:
    """One scaling for all modules where they share it; else 1, and each module's own in its B."""
    scales = {module: how.scaling(module) for module in factors}
    if len(set(scales.values())) == 1:
        return Adapter(dict(factors), next(iter(scales.values())))
    return Adapter({m: (a, b * scales[m]) for m, (a, b) in factors.items()}, 1.0)
