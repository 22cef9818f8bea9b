"""Vaccinate: fine-tune on somebody's data while steering toward a trait that nobody wants, so that it isn't learned.

In: a JSONL file of prompts and answers, a persona whose neg pole is unwanted. Out: an ordinary run folder with

    fight/rows.jsonl     what was read of the file, split into rows to train on and held-out rows
    fight/plain/         an adapter by plain fine-tuning on the rows, its scores and its NLL of the held-out rows
    fight/prevented/     the same for fine-tuning under steering, with the anchor
    adapter/             the prevented adapter, as a PEFT folder
    fight.json           what was prevented and what was still learned, with intervals
    report.html          the same on one page, with what each model writes

rows       the file, checked
training   both ways of fine-tuning
result     what was prevented, what was learned

    L_plain = NLL(rows),   L_prevented = NLL(rows | h ← h − dose·v) + λ_a·KL(base‖student) on neutral answers, unsteered

with v from the neg pole to the pos pole. Source: preventative steering, Chen et al. 2025, arXiv 2507.21509; the anchor is
this project's heal. An orchestrator beside `loop.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from steer_heal_love import bake, base, presets, replicas, report, steps
from steer_heal_love.config import RunConfig
from steer_heal_love.fight import result
from steer_heal_love.fight.rows import Split, load_split, read, save_split, split
from steer_heal_love.fight.training import tuned
from steer_heal_love.ground import folder as files
from steer_heal_love.ground import identity, models, purposes, records
from steer_heal_love.ground.identity import Warn
from steer_heal_love.ground.progress import Track, silent
from steer_heal_love.nouns import Adapter, Stage
from steer_heal_love.session import Run, Session, created, ignored, opened, seed_for
from steer_heal_love.vector import Vector

WAYS = ("plain", "prevented")


def run(settings: RunConfig | None, file: Path, *, track: Track = silent, **overrides: Any) -> Run:
    """A new run on the rows of `file`. Raises `UserError` before anything is written when the file or a setting is wrong."""
    given = read(file)
    replicas.refuse(presets.resolved(overrides, settings), "shl run --fight")

    def rows_first(cfg: RunConfig, path: Path) -> None:
        save_split(split(given, seed=seed_for(cfg.seed, purposes.SPLIT)), rows_of(path))

    session = created(settings, overrides, track, first=rows_first)
    with session.folder.locked():
        return fought(session)


def resumed(
    path: Path,
    *,
    track: Track = silent,
    trust_remote_code: bool = False,
    warn: Warn = ignored,
    **placed: Any,
) -> Run:
    """Go on with a run that was begun by `run`; `placed` are other values of the settings of where it computes."""
    replicas.refuse(replace(RunConfig(), **placed), "shl run --fight")
    r = opened(path, track, trust_remote_code=trust_remote_code, warn=warn, **placed)
    with r.folder.locked():
        return fought(r)


def rows_of(folder: Path) -> Path:
    """Where the rows of such a run lie; no other run has them."""
    return folder / "fight" / "rows.jsonl"


def fought(s: Session) -> Run:
    """Measure the base, fine-tune both ways, measure both, say what came of it."""
    given = load_split(rows_of(s.folder.path))
    r = Run.on(s, base.measured(s))
    vector = r.once(steps.VECTOR, 0, lambda: steps.steer(r))
    nll = {"base": result.held_nll(r, given.held, r.folder.path / "fight" / "base.json")}
    stages, adapters = {}, {}
    for way in WAYS:
        here = r.folder.path / "fight" / way
        adapters[way] = learned(r, way, given, vector)
        with_adapter = partial(steps.exported, r, [adapters[way]])
        nll[way] = result.held_nll(r, given.held, here / "held.json", with_adapter)
        (stages[way],) = r.folder.once(
            "evaluate",
            here / "scores.json",
            files.load_stages,
            files.save_stages,
            partial(measured, r, with_adapter),
        )
    bake.save_peft(
        adapters["prevented"],
        r.folder.path / "adapter",
        base_model=models.base_name(r.config.model),
        note=identity.of_run(r.folder.path).note(),
    )
    found = result.of(
        r.stages[0], stages, nll, [row.prompt for row in given.held], resamples=r.config.eval.resamples
    )
    about = {
        "schema": records.SCHEMA,
        "kind": "fight",
        "persona": r.persona.name,
        "unwanted": r.persona.neg,
        "model": r.config.model,
        "seed": r.config.seed,
        "rows": len(given.train),
        "held_rows": len(given.held),
        "dose": r.config.walk.start,
    }
    records.write_json(r.folder.path / "fight.json", about | found)
    report.write([r.folder.path], r.folder.path / "report.html")
    r.folder.event("end", fight=True)
    return r


def measured(r: Run, with_adapter: Callable[[], AbstractContextManager[None]]) -> list[Stage]:
    """One way's model under the run's instruments."""
    return [steps.evaluated(r, "healed", -1, with_adapter, draws=r.config.eval.healed_draws)]


def learned(r: Run, way: str, given: Split, vector: Vector) -> Adapter:
    """The adapter of one way of fine-tuning, made once, on the model's device."""
    make = lambda: tuned(r, given.train, vector if way == "prevented" else None)
    adapter, _ = steps.HEAL.once(r.folder, r.folder.path / "fight" / way, make)
    to = r.model.device
    return Adapter({n: (a.to(to), b.to(to)) for n, (a, b) in adapter.factors.items()}, adapter.scaling)
