"""Which of the library's model classes a configuration is loaded as: text alone, or text and more of which only text is used."""

from __future__ import annotations

from typing import Any

from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    PreTrainedConfig,
)

from steer_heal_love.ground.errors import UserError

KINDS = (
    (MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM),
    (MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoModelForImageTextToText),
    (MODEL_FOR_MULTIMODAL_LM_MAPPING, AutoModelForMultimodalLM),
)


def auto_class(name: str, config: PreTrainedConfig) -> Any:
    """The class to load a configuration as. Raises `UserError`, before any weight is read, where a model has an encoder
    of its own for the prompt, or generates no text that this library knows of."""
    if config.is_encoder_decoder:
        raise UserError(
            f"model {name!r} is a {config.model_type}, with an encoder for the prompt and a decoder for the answer; "
            "the assistant tag has to stand before the answer in one decoder. Use a decoder-only chat model."
        )
    remote = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    for known, kind in KINDS:
        if remote or type(config) in known:
            return kind
    raise UserError(
        f"model {name!r} is a {config.model_type}, which transformers loads as no model that generates text; "
        "use a chat model."
    )
