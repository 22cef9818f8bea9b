"""Settings to start from, by what they are for: a first look, a study of the embedded model, a larger one on a GPU."""

from __future__ import annotations

from pathlib import Path

from steer_heal_love.config import RETIRED, RunConfig
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.overrides import override
from steer_heal_love.ground.untrusted import refuse, toml
from steer_heal_love.nouns import Json

CODE = "it would run code that comes with the model; if you trust that, give --trust-remote-code"
"""why no settings file may say that it trusts a model's code"""
PRESETS: dict[str, Json] = {
    "demo": {
        "rounds": 2,
        "vector": {"contexts": 32},
        "generate": {"prompts": 8, "max_new_tokens": 40, "batch": 96},
        "walk": {"doses": 3},
        "filter": {"keep": 20, "calibration": 32, "least": 10},
        # Half as much text in smaller steps: as many steps as a study's heal takes.
        "heal": {
            "batch": 4,
            "anchor_batch": 3,
            "anchor_prompts": 48,
            "anchor_tokens": 32,
            "anchor_validation": 0.5,
            "anchor_kinds": ["short"],
        },
        "eval": {
            "instruments": ["neutral", "probes", "samples"],
            "probes": 24,
            "third_answers": False,
            "neutral_prompts": 32,
            "sample_prompts": 8,
            "sample_tokens": 32,
            "base_draws": 2,
            "healed_draws": 2,
            "transfer": "off",
            "neutral_kinds": ["short"],
            "wordings": False,
            "nulls": False,
        },
    },
    "cpu": {},
    "gpu": {
        "batch_tokens": 32768,
        "vector": {"contexts": 256},
        "generate": {"prompts": 32, "max_new_tokens": 512, "batch": 192},
        "filter": {"keep": 64, "calibration": 128},
        "heal": {
            "batch": 8,
            "micro_batch": 8,
            "anchor_batch": 8,
            "anchor_prompts": 160,
            "anchor_tokens": 128,
        },
        "eval": {
            "vignettes": 126,
            "paraphrases": 4,
            "capability_blocks": 10,
            "transfer": "full",
            "sample_prompts": 48,
            "sample_tokens": 128,
        },
    },
}


ABOUT = {
    "demo": "a first look in minutes on any processor: fewer rounds, fewer items, wider intervals",
    "cpu": "a study of the embedded model on any processor; the defaults",
    "gpu": "a study of a larger model on a GPU",
}
"""what each preset is for"""


def preset(name: str) -> RunConfig:
    """The named preset's full settings."""
    return override(RunConfig(), PRESETS[name])


def fitting(device: str = RunConfig.device, model: str = RunConfig.model) -> RunConfig:
    """The preset that fits: `gpu` on CUDA, but `cpu` for the embedded model there too (decision 15)."""
    if model == RunConfig.model:
        return preset("cpu")
    if device == "auto":
        from steer_heal_love.ground.models import auto_device  # torch, which takes its time

        device = auto_device()
    return preset("gpu" if device.startswith("cuda") else "cpu")


def resolved(changes: Json, start: RunConfig | None = None) -> RunConfig:
    """`changes` over `start`, or else over the preset that fits the device and model that they name.

    Raises `UserError` with every mistake.
    """
    named = {key: changes[key] for key in ("device", "model") if isinstance(changes.get(key), str)}
    return override(start or fitting(**named), changes)


def read(path: Path, *, trust_remote_code: bool = False) -> RunConfig:
    """Settings of a TOML file over the preset that fits. Raises `UserError` with every mistake.

    `trust_remote_code` is never taken from a file: a run folder may come from anywhere, and its model's code would be
    executed. A file that wants it is refused unless the one who calls asks for it too.
    """
    name = f"settings file {path}"
    found = toml(path, name)
    asks = found.data.get("trust_remote_code") is True
    if asks and not trust_remote_code:
        refuse(name, [f"trust_remote_code: {CODE}"])
    try:
        data = current(found.data)
        settings = resolved(data | {"trust_remote_code": trust_remote_code} if asks else data)
    except UserError as e:
        refuse(name, found.all(str(e).splitlines()))
        raise
    refuse(name, found.all([]))
    return settings


def current(data: Json) -> Json:
    """`data` without settings that are gone, where it has them at the value that the program still works with."""
    out = dict(data)
    for room, gone in RETIRED.items():
        if isinstance(table := data.get(room), dict):
            out[room] = {key: v for key, v in table.items() if key not in gone or gone[key] != v}
    return out
