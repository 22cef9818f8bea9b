"""What an engine is: it takes an order and writes the answers. One file and one decorator.

In: a model in memory, its tokenizer, an order of prompts with a dose and a vector each. Out: the token ids of each answer,
end-of-turn included. Invariants, which the tests hold every engine to: in fp32 its likeliest tokens are those of `own`;
a row's tokens depend on its seed, and not on the batch it travelled in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steer_heal_love.config import GenerateConfig, RunConfig
from steer_heal_love.ground import places
from steer_heal_love.ground.condition import Condition
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.hooks import hooked
from steer_heal_love.ground.operations import Steering
from steer_heal_love.ground.policy import Policy
from steer_heal_love.ground.progress import Track, silent
from steer_heal_love.ground.registry import Registry

REFERENCE = "own"
"""the engine that the others are compared with"""


@dataclass(frozen=True)
class Order:
    """Answers to write. Row i is steered by `steerings[which[i]]` at `doses[i]`; without `steerings` nothing is steered."""

    prompts: list[tuple[int, ...]]
    ends: frozenset[int]
    """tokens that close an answer, kept as its last"""
    config: GenerateConfig
    max_new_tokens: int
    seed: int
    steerings: tuple[Steering, ...] = ()
    which: list[int] = field(default_factory=list)
    doses: list[float] = field(default_factory=list)
    adapt: Policy | None = None
    when: Condition | None = None
    """only rows whose prompt meets it are steered"""
    track: Track = silent
    label: str = "generate"


Write = Callable[[PreTrainedModel, PreTrainedTokenizerBase, Order], list[tuple[int, ...]]]


@dataclass(frozen=True)
class Engine:
    """A way to write answers, and what it can't do.

    `operations`: the steering operations that it knows, None for every one. `adapts`: whether the dose may change while an
    answer is written. `anywhere`: whether it steers at linear modules too, and under a condition, not only on the residual
    stream of every row. `ready` raises `UserError` where it isn't installed, or can't sample as asked; `fits` where it doesn't
    know the model.
    """

    name: str
    write: Write
    ready: Callable[[GenerateConfig], None]
    fits: Callable[[GenerateConfig, PreTrainedModel], None]
    operations: frozenset[str] | None = None
    adapts: bool = True
    anywhere: bool = True


engines: Registry[Engine] = Registry("engine", "steer_heal_love.generate")


def engine(
    name: str,
    *,
    operations: frozenset[str] | None,
    adapts: bool,
    anywhere: bool,
    ready: Callable[[GenerateConfig], None],
    fits: Callable[[GenerateConfig, PreTrainedModel], None],
) -> Callable[[Write], Write]:
    """Register what writes; see `Engine`."""

    def put(write: Write) -> Write:
        engines.register(name, Engine(name, write, ready, fits, operations, adapts, anywhere))
        return write

    return put


def allow(cfg: RunConfig) -> None:
    """Raise `UserError` where the engine that a run asks for isn't there, or can't do what its settings ask."""
    chosen = engines[cfg.generate.engine]
    lacks(chosen, cfg.adapt.operation, adapts=cfg.adapt.adapts, elsewhere=bool(cfg.vector.hook))
    if chosen.name != REFERENCE and (cfg.replicas, cfg.split) != (1, 1):
        raise UserError(
            f"replicas, split: engine {chosen.name} spreads over GPUs by options of its own (generate.engine_options). "
            f"Leave both at 1, or take --generate.engine {REFERENCE}."
        )
    chosen.ready(cfg.generate)


def lacks(chosen: Engine, operation: str, *, adapts: bool, elsewhere: bool) -> None:
    """Raise `UserError` for steering that the engine can't do."""
    instead = f"Take --generate.engine {REFERENCE}, which does everything"
    if chosen.operations is not None and not chosen.operations:
        raise UserError(
            f"generate.engine {chosen.name}: it can't steer, and a dose was asked for. {instead}."
        )
    if chosen.operations is not None and operation not in chosen.operations:
        does = ", ".join(sorted(chosen.operations))
        raise UserError(
            f"adapt.operation {operation}: engine {chosen.name} doesn't do it; it does: {does}. "
            f"{instead}, or --adapt.operation {sorted(chosen.operations)[0]}."
        )
    if adapts and not chosen.adapts:
        raise UserError(
            f"adapt.half_life, adapt.cap_nats, adapt.rewinds: engine {chosen.name} keeps the dose of an answer. "
            f"{instead}, or leave all three at 0."
        )
    if elsewhere and not chosen.anywhere:
        raise UserError(
            f"vector.hook, or a condition: engine {chosen.name} steers the residual stream of every row alone. {instead}."
        )


def fit(cfg: GenerateConfig, model: PreTrainedModel) -> None:
    """Raise `UserError` where the engine that is asked for doesn't know this model."""
    engines[cfg.engine].fits(cfg, model)


def write(model: PreTrainedModel, tok: PreTrainedTokenizerBase, order: Order) -> list[tuple[int, ...]]:
    """The answers, in the order of the prompts, by the engine that the settings name.

    A model that hooks change is written by `own`: other engines are given weights, and a hook isn't in them.
    """
    chosen = engines[REFERENCE if hooked(model) else order.config.engine]
    for steering in order.steerings:
        elsewhere = order.when is not None or bool(places.of(steering.directions).hook)
        lacks(chosen, steering.operation, adapts=order.adapt is not None, elsewhere=elsewhere)
    return chosen.write(model, tok, order) if order.prompts else []
