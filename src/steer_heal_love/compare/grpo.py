"""Policy gradient without steering: the student writes, and what is more on-trait for its coherence than its group's mean
becomes likelier. Group-relative advantages with one update a sample, so that nothing is clipped:

    R(y) = on_trait(y) − relu(nll(y) − mean nll of the base's own),   A = (R − mean) / sd in the group of one prompt.

Source: GRPO in Shao et al. 2024, DeepSeekMath, arXiv 2402.03300, section 4.2: groups of 64, a KL to the reference of weight
0.04, learning rate 1e-6, one update an exploration.
Changed: groups of 4, since there are as many samples as all rounds draw; in place of the KL on the samples the loop's anchor,
KL to the base on neutral answers; the reward is this project's; adapter and learning rate are every method's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np

from steer_heal_love import filter as sieve
from steer_heal_love.compare.bench import Bench
from steer_heal_love.compare.method import Cell, method
from steer_heal_love.compare.scaled import KNOB, scaled
from steer_heal_love.compare.stepwise import Lesson, Student, example, learned
from steer_heal_love.generate import generate
from steer_heal_love.nouns import Completion
from steer_heal_love.session import Run

GROUP = 4
"""samples a prompt"""


@method("grpo", knob=KNOB, kind="healed")
def grpo(bench: Bench) -> Iterator[Cell]:
    cfg = bench.run.config

    @cache
    def usual() -> float:
        return float(np.mean([c.checks["nll"] for c in measured(bench.run, bench.run.base.calibration)]))

    def lesson(student: Student) -> Lesson:
        r, groups = student.run, max(1, student.pace.completions // GROUP)
        prompts = [p for p in student.prompts(groups) for _ in range(GROUP)]
        with student.with_adapter():
            made = generate(r.model, r.tok, prompts, [0.0], config=cfg.generate, seed=student.seed())
        made = measured(r, made)
        groups_of = [made[i : i + GROUP] for i in range(0, len(made), GROUP)]
        weights = [a for group in groups_of for a in advantages(group, usual())]
        return Lesson([example(c, weight=a) for c, a in zip(made, weights, strict=True) if a], made)

    yield from scaled(bench, learned(bench, replace(cfg.heal, soft=0.0), lesson))


def measured(r: Run, completions: list[Completion]) -> list[Completion]:
    """Copies with what the reward is made of, whichever checks the run has."""
    copies = [replace(c) for c in completions]
    names = ("nll", "on_trait")
    return sieve.measured(r.model, r.tok, copies, r.persona, names, batch_tokens=r.config.batch_tokens)


def reward(c: Completion, usual: float) -> float:
    """On-trait evidence less what the text is beyond the base's own in nats/token; NaN where undefined."""
    return c.checks["on_trait"] - max(0.0, c.checks["nll"] - usual)


def advantages(group: list[Completion], usual: float) -> list[float]:
    """How many standard deviations each reward is above its group's mean; 0 for all where they don't differ."""
    rewards = [reward(c, usual) for c in group]
    found = [x for x in rewards if math.isfinite(x)]
    spread = float(np.std(found)) if found else 0.0
    if spread < 1e-6:
        return [0.0] * len(group)
    mean = float(np.mean(found))
    return [(x - mean) / spread if math.isfinite(x) else 0.0 for x in rewards]
