"""Does vLLM run this model as it lies in memory? Imports vLLM, which takes seconds."""

from __future__ import annotations

from transformers import PreTrainedModel

from steer_heal_love.generate.vllm import ELSE, quiet
from steer_heal_love.ground.errors import UserError


def check(model: PreTrainedModel) -> None:
    """Raise `UserError` for an architecture that this vLLM has no code for, for quantised weights, and for another kind
    of device than the one that this vLLM was built for."""
    quiet.settle()
    try:
        from vllm import ModelRegistry
        from vllm.platforms import current_platform
    except ImportError as e:
        raise UserError(
            f"generate.engine vllm: vLLM is installed but can't be imported ({str(e)[:120]!r}). Where a torchvision, torchaudio "
            f"or torchcodec for another torch is installed beside it, remove it; or {ELSE}."
        ) from e
    name = type(model).__name__  # which the library writes into the folder that vLLM is given
    if name not in ModelRegistry.get_supported_archs():
        raise UserError(
            f"generate.engine vllm: it doesn't know the model {name:.80}; {ELSE}, or a newer vLLM."
        )
    if any(not p.is_floating_point() for p in model.parameters()):
        raise UserError(
            f"generate.engine vllm: the base's weights are quantised, and rounds stay beside them; {ELSE}."
        )
    if (built := current_platform.device_type) != model.device.type:
        raise UserError(
            f"generate.engine vllm: this vLLM was built for {built}, the model is on {model.device.type}; "
            f"say --device {built}, install the vLLM for {model.device.type}, or {ELSE}."
        )
