"""Null: another shipped persona's vector, the one that points least along this persona's, healed exactly as the healed
round is. Its own norm is kept: the walk finds the dose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from steer_heal_love import steps
from steer_heal_love.compare.alike import alike
from steer_heal_love.compare.bench import Bench
from steer_heal_love.compare.method import Cell, method
from steer_heal_love.compare.scaled import KNOB
from steer_heal_love.persona import load, names
from steer_heal_love.session import Run
from steer_heal_love.vector import Vector


@method("null_unrelated", knob=KNOB, kind="healed", null=True)
def null_unrelated(bench: Bench) -> Iterator[Cell]:
    yield from alike(bench, lambda r: unrelated(r, bench.vector()))


def unrelated(r: Run, v: Vector) -> Vector:
    """Of the other shipped personas' vectors the one of least |cosine| with `v`; which, and the cosine, in its meta."""
    others = [steps.steer(replace(r, persona=load(name))) for name in names() if name != r.persona.name]
    least = min(others, key=lambda other: abs(other.cosine(v)))
    return Vector(least.directions, least.meta | {"cosine_with_the_personas": least.cosine(v)})
