"""The engine `own`: the decode loops of this package, on the model in memory. The reference of all others."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steer_heal_love.config import GenerateConfig
from steer_heal_love.generate.engine import REFERENCE, Order, engine
from steer_heal_love.ground.adaptive import written
from steer_heal_love.ground.decode import sample
from steer_heal_love.ground.errors import UserError


def ready(cfg: GenerateConfig) -> None:
    """It is always there, and is told nothing besides."""
    if cfg.engine_options:
        raise UserError(
            f"generate.engine_options {' '.join(cfg.engine_options):.80}: engine {REFERENCE} takes none; leave them out, or "
            "name the engine that they are for with --generate.engine."
        )


def fits(_cfg: GenerateConfig, _model: PreTrainedModel) -> None:
    """Whatever was loaded can be written with."""


@engine(REFERENCE, operations=None, adapts=True, anywhere=True, ready=ready, fits=fits)
def write(model: PreTrainedModel, _tok: PreTrainedTokenizerBase, order: Order) -> list[tuple[int, ...]]:
    """Rows of one vector share a batch."""
    if not order.steerings:
        return steered(model, order, None, range(len(order.prompts)))
    out: list[tuple[int, ...]] = [()] * len(order.prompts)
    for n in range(len(order.steerings)):
        rows = [i for i, which in enumerate(order.which) if which == n]
        for i, answer in zip(rows, steered(model, order, n, rows), strict=True):
            out[i] = answer
    return out


def steered(
    model: PreTrainedModel, order: Order, n: int | None, rows: list[int] | range
) -> list[tuple[int, ...]]:
    """The answers of these rows, which the n-th vector steers, or nothing."""
    cfg, prompts = order.config, [order.prompts[i] for i in rows]
    how: dict[str, Any] = {
        "ends": order.ends,
        "max_new_tokens": order.max_new_tokens,
        "seed": order.seed,
        "label": order.label,
        "temperature": cfg.temperature,
        "min_p": cfg.min_p,
        "batch": cfg.batch,
        "track": order.track,
    }
    if n is None:
        return sample(model, prompts, **how)
    steering, doses = order.steerings[n], [order.doses[i] for i in rows]
    if order.adapt is None:
        return sample(
            model,
            prompts,
            steer=steering.directions,
            operation=steering.operation,
            doses=doses,
            when=order.when,
            streams=list(rows),
            **how,
        )
    if len(order.steerings) > 1:
        raise ValueError("a dose that adapts is that of one vector")
    return written(
        model, prompts, steering=steering, doses=doses, policy=order.adapt, when=order.when, **how
    ).answers
