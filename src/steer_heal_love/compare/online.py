"""The loop without rounds: steer, generate, filter, one gradient step; the vector is read anew as often as rounds would.

The dose follows the filter: it rises while more of the text is coherent than `walk.survival` asks for, and falls
while less is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from steer_heal_love import steps
from steer_heal_love.compare.bench import Bench
from steer_heal_love.compare.method import Cell, method
from steer_heal_love.compare.scaled import KNOB, scaled
from steer_heal_love.compare.stepwise import Lesson, Student, example, learned
from steer_heal_love.generate import generate
from steer_heal_love.vector import Vector

GAIN = 0.5
"""how fast the dose follows: the change of its log for a survival that is off by one"""


@method("online", knob=KNOB, kind="healed")
def online(bench: Bench) -> Iterator[Cell]:
    cfg = bench.run.config
    dose = cfg.walk.start
    vector: Vector | None = None

    def lesson(student: Student) -> Lesson:
        nonlocal dose, vector
        r, pace = student.run, student.pace
        with student.with_adapter():
            if vector is None or student.step % (pace.steps // cfg.rounds) == 0:
                vector = steps.steer(r)
            made = generate(
                r.model,
                r.tok,
                student.prompts(pace.completions),
                [dose],
                config=cfg.generate,
                directions=vector.directions,
                seed=student.seed(),
            )
        kept = [c for c in steps.judge(r, made) if c.kept]
        survival = sum(c.coherent for c in made) / len(made)
        dose *= math.exp(GAIN * (survival - cfg.walk.survival * r.base.coherent))
        dose = min(max(dose, cfg.walk.floor), cfg.walk.ceiling)
        with student.with_adapter():
            # The teacher is steered where the settings start from, as a round's is at the dose that round 0 found.
            states = steps.teacher_states_of(r, kept, vector, cfg.walk.start) if kept else []
        return Lesson([example(c, teacher=h) for c, h in zip(kept, states, strict=True)], made)

    yield from scaled(bench, learned(bench, cfg.heal, lesson))
