"""One question asked of every model, its likeliest answers shown while the run goes on."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from steer_heal_love.generate import generate
from steer_heal_love.ground.step import PREVIEWS, Step
from steer_heal_love.nouns import Preview
from steer_heal_love.session import Run, Session
from steer_heal_love.steps import exported
from steer_heal_love.vector import Vector

FIRST = Step("look", "first.jsonl", PREVIEWS)
EACH = Step("look", "look.jsonl", PREVIEWS)
TOKENS = 28
"""of an answer that is only looked at"""


def first_preview(s: Session, vector: Vector) -> list[Preview]:
    """The base's answer to one held-out question, and the answer steered at the dose that the walk tries first."""
    dose = s.config.walk.start
    with s.track("first look", 1) as advance:
        plain, steered = answered(s, vector, [0.0, dose])
        advance(1)
    return [Preview("base", -1, asked(s), plain), Preview("steered", 0, asked(s), steered, dose)]


def preview(r: Run, number: int, vector: Vector, dose: float) -> list[Preview]:
    """The same question to the student that the round steered, at the dose it found, and to the healed one."""
    with r.track("look", 2) as advance:
        with r.after(r.history[:-1]):
            (steered,) = answered(r, vector, [dose])
        advance(1)
        with exported(r, r.history):
            (healed,) = answered(r, vector, [0.0])
        advance(1)
    return [Preview("steered", number, asked(r), steered, dose), Preview("healed", number, asked(r), healed)]


def asked(s: Session) -> str:
    return s.persona.probes[0].question


def answered(s: Session, vector: Vector, doses: list[float]) -> list[str]:
    """The likeliest answer at each dose to the question that is looked at."""
    likeliest = replace(s.config.generate, temperature=0.0)
    write = partial(generate, s.model, s.tok, [asked(s)], doses, config=likeliest, seed=0)
    return [c.text for c in write(directions=vector.directions, max_new_tokens=TOKENS)]
