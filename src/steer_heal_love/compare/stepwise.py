"""Training on text that the student writes as it learns: a few completions, judged by the base, then one gradient step.

What the loop does in rounds, in as many steps and completions as its rounds have together (the walk's first passes; a
starving walk draws more), with the same loss terms, anchor and optimiser. There is no trust region: the scale is the knob.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steer_heal_love import steps
from steer_heal_love.compare.bench import Bench
from steer_heal_love.config import HealConfig, RunConfig
from steer_heal_love.ground import purposes
from steer_heal_love.ground.errors import Starved
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.ground.progress import silent
from steer_heal_love.heal.examples import Example, cycle, split_anchor
from steer_heal_love.heal.lora import fresh
from steer_heal_love.heal.optimise import Trainer
from steer_heal_love.nouns import Adapter, Completion, Healing
from steer_heal_love.persona import training_prompts
from steer_heal_love.session import Run


@dataclass(frozen=True)
class Pace:
    """How many gradient steps, and how many completions before each."""

    steps: int
    completions: int

    @classmethod
    def of(cls, cfg: RunConfig) -> Pace:
        """The loop's: every round's steps, and every round's completions shared out among them."""
        a_round = cfg.heal.epochs * -(-cfg.filter.keep // cfg.heal.batch)
        drawn = cfg.walk.passes * cfg.walk.doses * cfg.generate.prompts
        return cls(cfg.rounds * a_round, max(1, round(drawn / a_round)))


@dataclass
class Student:
    """The model as it is after so many steps: `run` has the base, `with_adapter()` puts on what was learned so far."""

    run: Run
    adapter: Adapter
    pace: Pace
    step: int = 0

    def with_adapter(self) -> AbstractContextManager[None]:
        return adapted(self.run.model, self.adapter.factors, self.adapter.scaling)

    def prompts(self, n: int) -> list[str]:
        """This step's training prompts, half of them drawing the trait out."""
        return training_prompts(self.run.persona, n, seed=self.seed())

    def seed(self) -> int:
        return self.run.seed(purposes.LESSON, self.step)


@dataclass(frozen=True)
class Lesson:
    """What one step learns from, and the completions that were made for it."""

    examples: list[Example]
    made: list[Completion]


def example(c: Completion, *, teacher: Tensor | None = None, weight: float = 1.0) -> Example:
    """A completion to learn from. Nothing reads its reference: the barrier is off, and nothing is held out."""
    unread = torch.empty(len(c.tokens.answer), 0) if teacher is None else teacher
    return Example(c.tokens, unread, c.prompt, teacher, weight)


def learned(bench: Bench, settings: HealConfig, lesson: Callable[[Student], Lesson]) -> Adapter:
    """An adapter trained on one lesson a step, made once. Raises `Starved` when every lesson was empty."""

    def make() -> tuple[Adapter, Healing]:
        r = replace(bench.fresh(), track=silent)
        cfg, pace = replace(settings, lam=0.0), Pace.of(r.config)
        adapter = fresh(
            r.model, rank=cfg.rank, alpha=cfg.alpha, share=cfg.layers, seed=r.seed(purposes.HEAL, 0)
        )
        student, trainer = Student(r, adapter, pace), Trainer(r.model, adapter, cfg, pace.steps)
        free, _ = split_anchor(r.base.anchor, cfg.anchor_validation) if cfg.anchor else ([], [])
        anchors = cycle(free, random.Random(r.seed(purposes.HEAL, 0)))
        record = Healing()
        with bench.run.track("heal", pace.steps) as advance:
            for student.step in range(pace.steps):
                got = lesson(student)
                row: dict[str, float] = {}
                if got.examples:
                    with student.with_adapter():
                        beside = [next(anchors) for _ in range(cfg.anchor_batch)] if free else []
                        row = trainer.update(trainer.gradient(got.examples, beside))
                tokens = sum(len(c.tokens.answer) for c in got.made)
                counts = {"made": len(got.made), "used": len(got.examples), "tokens": tokens}
                # A step that kept no text is a row too, and has no terms to say which it was.
                row |= {"step": student.step} | counts
                record.steps.append(row)
                advance(1)
        trainer.end()
        if not any(row["used"] for row in record.steps):
            raise Starved("no step had a completion to learn from.")
        return adapter, record

    adapter, _ = steps.HEAL.once(bench.folder, bench.folder.path / "adapter", make)
    return bench.placed(adapter)
