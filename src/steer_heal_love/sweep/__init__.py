"""Which method, which layers: tried at equal nats on a small held-out set, before a run is paid for.

In: a bed (model, persona, settings), bands of layers, methods, operations, nats. Out: a cell for each, and a choice:

    choice = argmax trait / nats   over cells whose dose was found and whose coherent share is at least floor · the base's,

with the default's cell always among them, and the paired difference from it. The choice is a file that `shl run --choice`
takes; a run by itself never looks for one. The probes are those of the search half, so that a run's report is on others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from steer_heal_love.config import VectorConfig
from steer_heal_love.ground import models, records
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.operations import rows
from steer_heal_love.ground.stats import bootstrap, subtract
from steer_heal_love.ground.untrusted import json_object
from steer_heal_love.nouns import Json, Score
from steer_heal_love.sweep.bed import Bed, Cell, laid
from steer_heal_love.vector import Needs, methods, needs
from steer_heal_love.vector.controls import CONTROLS
from steer_heal_love.vector.iso_kl import iso_kl

BANDS = ((0.1, 0.4), (0.3, 0.5), VectorConfig.layers, (0.5, 0.7), (0.6, 0.9))
"""shares of the depth that are tried, the default among them"""
FLOOR = 0.8
"""least coherent share of a choice, as a share of the base's own"""
KIND = "sweep"

Band = tuple[float, float]


@dataclass(frozen=True)
class Sweep:
    """Every cell, the floor on coherence, and the choice with its paired lead over the default in trait per nat."""

    cells: list[Cell]
    floor: float
    choice: Cell | None
    lead: Score


def layers_of(model: Any, bands: Iterable[Band]) -> list[int]:
    """Every layer of any of the bands."""
    return sorted({i for band in bands for i in models.band(model, band)})


def sweep(
    bed: Bed,
    *,
    bands: Iterable[Band] = BANDS,
    names: Iterable[str] = (),
    operations: Iterable[str] = ("add",),
    nats: Iterable[float] = (1.0,),
    floor: float = FLOOR,
) -> Sweep:
    """Every method (all when none is named) in every band with every operation that takes it, at every number of nats.

    `names` may hold controls (`vector.controls`), which are measured and never chosen. The bed must hold the states of all these layers. `floor` is a share of the base's own coherent share.
    """
    names, nats = tuple(names) or tuple(methods), tuple(nats)
    tries = [(m, b, o) for b in bands for m in names for o in applied(m, operations)]
    cells: list[Cell] = []
    with bed.track("sweep", len(tries)) as advance:
        for name, band, operation in tries:
            cells += cells_at(bed, name, band, operation, nats)
            advance(1)
    least = floor * bed.coherent.mean
    choice = pick(cells, least)
    return Sweep(cells, least, choice, lead(bed, choice, cells))


def applied(method: str, operations: Iterable[str]) -> list[str]:
    """The operations that take what a method finds: those asked for, or the one that it is made for."""
    own = needs.get(method, Needs()).operation
    return [own] if own else [o for o in operations if rows.get(o, 1) == 1]


def cells_at(bed: Bed, name: str, band: Band, operation: str, nats: Iterable[float]) -> list[Cell]:
    """One direction and operation at every number of nats, whose doses are found together."""
    steering = bed.steering(name, models.band(bed.model, band), operation)
    found = iso_kl(bed.model, steering, nats, bed.trials, start=bed.config.walk.start)
    return [bed.measured(name, band, steering, dose) for dose in found]


def pick(cells: list[Cell], least: float) -> Cell | None:
    """The cell with most trait per nat among those whose dose was found and whose text is coherent enough."""
    fine = [c for c in cells if c.dose.reached and c.coherent.mean >= least and c.method not in CONTROLS]
    return max(fine, key=lambda c: c.per_nat.mean, default=None)


def lead(bed: Bed, choice: Cell | None, cells: list[Cell]) -> Score:
    """Trait per nat of the choice less that of the default at the same nats, paired by probe; undefined without either."""
    ours = bed.config.vector
    default = next(
        (
            c
            for c in cells
            if choice
            and (c.method, c.layers, c.operation, c.dose.nats)
            == (ours.method, ours.layers, "add", choice.dose.nats)
        ),
        None,
    )
    if choice is None or default is None:
        return Score.undefined()
    each = [[s / c.dose.kl_nats for s in c.shifts] for c in (choice, default)]
    return bootstrap(subtract(*each), resamples=bed.config.eval.resamples)


def saved(found: Sweep, bed: Bed, path: Path) -> Json:
    """Write what a sweep found as JSON; what was written."""
    c = found.choice
    row = records.plain(
        {
            "schema": records.SCHEMA,
            "kind": KIND,
            "persona": bed.persona.name,
            "model": bed.config.model,
            "model_hash": models.fingerprint(bed.model),
            "seed": bed.config.seed,
            "base_coherent": bed.coherent,
            "floor": found.floor,
            "cells": [asdict(cell) for cell in found.cells],
            "lead": found.lead,
            "choice": c
            and {
                "method": c.method,
                "operation": c.operation,
                "layers": c.layers,
                "hook": bed.config.vector.hook,
                "nats": c.dose.nats,
                "dose": c.dose.dose,
            },
        }
    )
    records.write_json(path, row)
    return row  # type: ignore[no-any-return]


def load_choice(path: Path, *, persona: str, model: str) -> Json:
    """The settings of `vector` that a sweep's file chose for this persona and model.

    Raises `UserError` for another kind of file, another persona or model, a file without a choice, and an operation that
    a run doesn't use.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; `shl vector sweep` writes one.")
    row = json_object(path, str(path)).data
    if row.get("kind") != KIND:
        raise UserError(
            f"{path}: expected what `shl vector sweep` writes, found kind {row.get('kind')!r:.40}."
        )
    wrong = [
        f"{key}: {row.get(key)!r:.80} there, {value!r} asked for"
        for key, value in (("persona", persona), ("model", model))
        if row.get(key) != value
    ]
    if wrong:
        raise UserError(f"{path}: a sweep of something else: {'; '.join(wrong)}.")
    return taken(row.get("choice"), path)


def taken(choice: Any, path: Path) -> Json:
    """Method, layers and hook point of a choice, checked; a file of before hook points has none."""
    if not isinstance(choice, dict):
        raise UserError(f"{path}: no cell of that sweep was coherent enough, so nothing was chosen.")
    method, band, hook = choice.get("method"), choice.get("layers"), choice.get("hook", "")
    own = needs.get(method, Needs()).operation if isinstance(method, str) else ""
    if choice.get("operation") != (own or "add"):
        raise UserError(
            f"{path}: the choice is operation {choice.get('operation')!r:.40}; a run applies this vector by {own or 'add'}."
        )
    number = lambda x: isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x)
    if (
        not isinstance(method, str)
        or not isinstance(hook, str)
        or not isinstance(band, list)
        or len(band) != 2
        or not all(map(number, band))
    ):
        raise UserError(
            f"{path}: expected a method's name and two shares of the depth, found {choice!r:.120}."
        )
    methods[method]
    return {"method": method, "layers": (float(band[0]), float(band[1])), "hook": hook}


__all__ = ["Bed", "Cell", "Sweep", "laid", "layers_of", "load_choice", "saved", "sweep"]
