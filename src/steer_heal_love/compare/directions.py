"""Steering methods by name in a comparison: `steered:NAME`, `steered:NAME:OPERATION` and `healed:NAME`.

`steered` is raw steering by that method's direction, and by that operation (add when none is named), at multiples of the
dose whose divergence is `walk.nats` (`vector.iso_kl`): methods are compared at equal nats. `healed` is one round on that
method's vector, steered, filtered and healed exactly as the healed round is; with `walk.kind` iso_kl its text is written
at equal nats too. `random` and `unrelated` stand for the two controls (`vector.controls`). They are made by name, so a new steering method needs no file here, and `shl list comparisons` does not
name them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from steer_heal_love import steps
from steer_heal_love.compare.alike import alike
from steer_heal_love.compare.bench import Bench
from steer_heal_love.compare.method import Cell, Method
from steer_heal_love.compare.scaled import KNOB
from steer_heal_love.ground import purposes
from steer_heal_love.ground.errors import Starved, unknown
from steer_heal_love.ground.operations import Steering, operations
from steer_heal_love.persona import load, names
from steer_heal_love.session import Run
from steer_heal_love.vector import Vector, applied_by
from steer_heal_love.vector import methods as directions
from steer_heal_love.vector.controls import CONTROLS, random_like, unrelated_like

KINDS = ("steered", "healed")


def by_name(name: str) -> Method:
    """The comparison that a name with a colon stands for. Raises `UserError` for a part that there isn't."""
    kind, method, *more = name.split(":")
    if kind not in KINDS or len(more) > (kind == "steered"):
        raise unknown("method of comparison", name, [f"{k}:METHOD" for k in KINDS])
    if method not in CONTROLS:
        directions[method]
    if kind == "healed":
        return Method(name, KNOB, "healed", partial(healed, method=method))
    operation = more[0] if more else "add"
    operations[operation]
    operation = applied_by(method, operation)
    knob = "multiple of the dose at walk.nats"
    return Method(name, knob, "steered", partial(steered, method=method, operation=operation))


def read_by(method: str, r: Run) -> Vector:
    """The persona's vector by this method, or the control of that name for the vector that a run takes."""
    if method == "random":
        return random_like(steps.steer(r), r.seed(purposes.RANDOM_VECTOR))
    if method == "unrelated":
        others = {p: steps.steer(replace(r, persona=load(p))) for p in names() if p != r.persona.name}
        return unrelated_like(steps.steer(r), others)
    return steps.steer(replace(r, config=replace(r.config, vector=replace(r.config.vector, method=method))))


def healed(bench: Bench, *, method: str) -> Iterator[Cell]:
    """Cells of one round on that method's vector, by scale of the update."""
    yield from alike(bench, partial(read_by, method))


def steered(bench: Bench, *, method: str, operation: str) -> Iterator[Cell]:
    """Cells of raw steering, by multiple of the dose at `walk.nats`. Raises `Starved` where no dose gets there."""
    r = replace(bench.fresh(), folder=bench.folder)
    adapt = replace(r.config.adapt, operation=operation)
    r = replace(r, config=replace(r.config, adapt=adapt))
    vector = steps.VECTOR.once(r.folder, r.folder.round(0), lambda: read_by(method, r))
    found = r.once(steps.DOSE, 0, lambda: steps.dosed(r, 0, vector, None))
    if not found["reached"]:
        raise Starved(f"no dose reaches {found['nats']:g} nats; the nearest has {found['kl_nats']:.3g}.")
    steering = Steering(vector.directions, operation)
    for multiple in bench.grid.doses:
        dose = multiple * found["dose"]
        yield Cell(multiple, (partial(steering, r.model, dose),), dose=dose, own=multiple == 1)
