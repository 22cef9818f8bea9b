"""The training loop: kept completions and anchor answers, step by step, with a look at the held-out ones each epoch."""

from __future__ import annotations

import math
import random
from dataclasses import replace

from transformers import PreTrainedModel

from steer_heal_love.config import HealConfig
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.ground.progress import Track, silent
from steer_heal_love.heal.diagnostics import gradient_ratios, validate, warn
from steer_heal_love.heal.examples import Example, cycle, near, split, split_anchor
from steer_heal_love.heal.lora import fresh, uncovered
from steer_heal_love.heal.optimise import Trainer
from steer_heal_love.nouns import Adapter, Healing


def heal(
    model: PreTrainedModel,
    kept: list[Example],
    anchor: list[Example],
    config: HealConfig,
    *,
    round: int = 0,
    seed: int = 0,
    batch_tokens: int = 4096,
    track: Track = silent,
) -> tuple[Adapter, Healing]:
    """Train a fresh LoRA on `model` as it stands (earlier rounds folded in).

    Raises `Diverged` when a loss is not a number; the model is left as it was.
    """
    adapter = fresh(model, rank=config.rank, alpha=config.alpha, share=config.layers, seed=seed)
    train, held = split(kept, config.validation, seed)
    anchor_train, anchor_held = split_anchor(anchor, config.anchor_validation)
    train, held, anchor_train, anchor_held = (
        near(part, model.device) for part in (train, held, anchor_train, anchor_held)
    )
    per_epoch = math.ceil(len(train) / config.batch)
    total = per_epoch * config.epochs
    trainer = Trainer(model, adapter, config, total, round=round)
    record, rng = Healing(), random.Random(seed)
    completions, anchors = cycle(train, rng), cycle(anchor_train, rng)

    with adapted(model, adapter.factors, adapter.scaling), track("heal", total) as advance:
        trainer.prepare(train, anchor_train if config.anchor else [], total)
        for step in range(total):
            left = len(train) - (step % per_epoch) * config.batch
            batch = [next(completions) for _ in range(min(config.batch, left))]
            extra = (
                [next(anchors) for _ in range(config.anchor_batch)] if config.anchor and anchor_train else []
            )
            terms = trainer.gradient(batch, extra)
            if step in {total // 4, total // 2, (3 * total) // 4}:
                terms()  # waits, as a process that sees whether the others live
                seen = gradient_ratios(model, batch, extra, trainer.config, trainer.weights, trainer.student)
                record.gradient_ratios.append({"step": step, **seen})
            record.steps.append(trainer.update(terms, ahead=True))
            advance(1)
            if (step + 1) % per_epoch == 0:
                trainer.read_terms()
                few = anchor_held[: len(held)]
                seen = validate(model, held, few, config, batch_tokens, trainer.student)
                record.validation.append({"epoch": (step + 1) // per_epoch, **seen})

    trainer.end()
    missing = uncovered(model, config.layers)
    return adapter, replace(record, warnings=warn(record, config) + ([missing] if missing else []))
