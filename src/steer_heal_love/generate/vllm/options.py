"""What vLLM may be told from outside, as NAME=VALUE. A list of its own: a run folder comes from other hands, and some of
vLLM's options load code."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from steer_heal_love.config import GenerateConfig
from steer_heal_love.ground.errors import UserError, unknown

OPTIONS: dict[str, Any] = {
    "tensor_parallel_size": int,
    "max_model_len": int,
    "max_num_batched_tokens": int,
    "gpu_memory_utilization": float,
    "enforce_eager": bool,
}


def options(cfg: GenerateConfig) -> dict[str, Any]:
    """The options by name. Raises `UserError` for one that isn't in the list, or is of another type."""
    found: dict[str, Any] = {}
    for text in cfg.engine_options:
        name, _, value = text.partition("=")
        if name not in OPTIONS:
            raise unknown("option of engine vllm", name[:80], OPTIONS)
        found[name] = typed(name, value)
    return found


def typed(name: str, text: str) -> Any:
    """The value as a number above 0, or as true or false."""
    kind = OPTIONS[name]
    value: Any = None
    with suppress(json.JSONDecodeError):
        value = json.loads(text.lower())
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind or (kind is not bool and not value > 0):
        wanted = (
            "true or false" if kind is bool else f"{'a whole number' if kind is int else 'a number'} above 0"
        )
        raise UserError(f"generate.engine_options {name}: {wanted}, found {text!r:.40}.")
    return value
