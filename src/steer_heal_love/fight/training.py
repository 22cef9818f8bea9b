"""Two ways of fine-tuning on the same rows, from the same factors, in the same order and number of steps.

The steering acts on the rows alone. The anchor is read unsteered, since what it holds is the model as it will be used.
"""

from __future__ import annotations

import random
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from steer_heal_love.config import HealConfig
from steer_heal_love.fight.rows import Row
from steer_heal_love.ground import purposes
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.heal.examples import NOTHING, Example, cycle, split_anchor, tokens
from steer_heal_love.heal.lora import fresh
from steer_heal_love.heal.losses import losses
from steer_heal_love.heal.optimise import Trainer, at_hand
from steer_heal_love.nouns import Adapter, Healing
from steer_heal_love.session import Run
from steer_heal_love.vector import Vector


def plain(cfg: HealConfig) -> HealConfig:
    """Heal settings that leave the NLL of the rows, and the anchor, alone."""
    return replace(cfg, lam=0.0, spectral=0.0, soft=0.0)


def tuned(r: Run, rows: list[Row], vector: Vector | None) -> tuple[Adapter, Healing]:
    """An adapter fine-tuned on `rows`: plainly, or steered against `vector` at the walk's first dose and anchored.

    Raises `Diverged` when a loss is not a number.
    """
    cfg, seed, rng = plain(r.config.heal), r.seed(purposes.FIGHT), random.Random(r.seed(purposes.FIGHT))
    examples = [Example(row.tokens(r.tok), NOTHING, row.prompt) for row in rows]
    order = [rng.sample(examples, len(examples)) for _ in range(cfg.epochs)]
    batches = [o[i : i + cfg.batch] for o in order for i in range(0, len(o), cfg.batch)]
    anchors = cycle(
        split_anchor(r.base.anchor, cfg.anchor_validation)[0] if vector and cfg.anchor else [], rng
    )
    steering = partial(vector, r.model, -r.config.walk.start) if vector else nullcontext
    adapter = fresh(r.model, rank=cfg.rank, alpha=cfg.alpha, share=cfg.layers, seed=seed)
    trainer, record = Trainer(r.model, adapter, cfg, len(batches)), Healing()
    with adapted(r.model, adapter.factors, adapter.scaling), r.track("fine-tune", len(batches)) as advance:
        for batch in batches:
            beside = [a for _, a in zip(range(cfg.anchor_batch), anchors, strict=False)]
            means = gradient(trainer, batch, beside, steering)
            record.steps.append(trainer.update(at_hand(means)))
            advance(1)
    trainer.end()
    return adapter, record


def gradient(trainer: Trainer, rows: list[Example], anchor: list[Example], steering: Any) -> dict[str, float]:
    """One step's gradient into the factors; both terms' means per token."""
    means: dict[str, float] = {}

    def add_up() -> None:
        trainer.optimiser.zero_grad()
        means.clear()
        cfg = trainer.config
        means["nll"] = added(trainer, "nll", rows, cfg, steering())
        if anchor:
            means["anchor"] = added(trainer, "anchor", anchor, cfg, nullcontext())

    trainer.fitted(add_up)
    return means


def added(
    trainer: Trainer, name: str, examples: list[Example], cfg: HealConfig, inside: AbstractContextManager[Any]
) -> float:
    """Add the gradient of one term's mean over the tokens of `examples`, weighted as the heal's is; that mean."""
    mean = 0.0
    with inside:
        for i in range(0, len(examples), cfg.micro_batch):
            part = examples[i : i + cfg.micro_batch]
            kept, anchor = (part, []) if name == "nll" else ([], part)
            term = losses(trainer.model, kept, anchor, cfg)[0][name] * (tokens(part) / tokens(examples))
            (trainer.weights[name] * term).backward()
            mean += term.item()
    return mean
