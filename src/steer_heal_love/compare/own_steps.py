"""Gradient steps on a paper's own loss, with the adapter, optimiser, schedule and starting factors of every other method.

In: what each step learns from, and the loss of each item. Out: an adapter, made once. A step's loss is the mean over its
items, added up over passes of at most `heal.micro_batch` items, which are halved until they fit in memory.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import TypeVar

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from steer_heal_love import steps
from steer_heal_love.compare.bench import Bench
from steer_heal_love.config import HealConfig
from steer_heal_love.ground import purposes
from steer_heal_love.ground.errors import Starved
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.ground.scoring import answer_hidden, pack
from steer_heal_love.heal.lora import fresh
from steer_heal_love.heal.loss import token_terms
from steer_heal_love.heal.optimise import Trainer, at_hand
from steer_heal_love.nouns import Adapter, Healing, Tokens

T = TypeVar("T")
WithAdapter = Callable[[], AbstractContextManager[None]]
"""puts on what was learned so far"""
Losses = Callable[[list[T]], Float[Tensor, " n"]]
"""each item's loss in nats, read with the adapter on"""


def own_steps(
    bench: Bench, name: str, total: int, items: Callable[[int, WithAdapter], list[T]], losses: Losses[T]
) -> Adapter:
    """An adapter trained for `total` steps on `losses` of `items(step, with_adapter)`. Raises `Starved` when every step was
    empty, and `Diverged` when a loss is not a number."""

    def make() -> tuple[Adapter, Healing]:
        r, cfg = bench.run, replace(bench.run.config.heal, spectral=0.0)
        adapter = fresh(
            r.model, rank=cfg.rank, alpha=cfg.alpha, share=cfg.layers, seed=r.seed(purposes.HEAL, 0)
        )
        with_adapter = partial(adapted, r.model, adapter.factors, adapter.scaling)
        trainer, record = Trainer(r.model, adapter, cfg, total), Healing()
        with r.track("heal", total) as advance:
            for step in range(total):
                batch = items(step, with_adapter)
                row: dict[str, float] = {}
                if batch:
                    with with_adapter():
                        loss = gradient(trainer, batch, losses)
                        row = trainer.update(at_hand({"loss": loss}))
                row["used"] = len(batch)
                record.steps.append(row)
                advance(1)
        trainer.end()
        if not any(row["used"] for row in record.steps):
            raise Starved("no step had anything to learn from.")
        return adapter, record

    adapter, _ = steps.HEAL.once(bench.folder, bench.folder.path / name, make)
    return bench.placed(adapter)


def gradient(trainer: Trainer, batch: list[T], losses: Losses[T]) -> float:
    """The gradient of the mean loss into the factors; that mean."""
    found = 0.0

    def add_up() -> None:
        nonlocal found
        found, size = 0.0, trainer.config.micro_batch
        trainer.optimiser.zero_grad()
        for i in range(0, len(batch), size):
            loss = losses(batch[i : i + size]).sum() / len(batch)
            loss.backward()
            found += loss.item()

    trainer.fitted(add_up)
    return found


def batches(items: list[T], cfg: HealConfig, *, epochs: int, seed: int) -> list[list[T]]:
    """Every item once an epoch, in an order of the seed's, `heal.batch` at a time: as many steps as a healed round has."""
    rng = random.Random(seed)
    orders = [rng.sample(items, len(items)) for _ in range(epochs)]
    return [order[i : i + cfg.batch] for order in orders for i in range(0, len(order), cfg.batch)]


def token_nlls(model: PreTrainedModel, sequences: list[Tokens]) -> tuple[Float[Tensor, " _"], ...]:
    """−log p of every answer token in nats, a row each, with gradients."""
    batch = pack(sequences, model.device)
    (nll,) = token_terms(model, answer_hidden(model, batch), batch.targets)
    return nll.split(batch.lengths)
