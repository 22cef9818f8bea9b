"""The story: steer, filter, heal, bake, evaluate, and again on the healed student.

Each step is done once: its result lies in the run folder, and a resumed run reads it back instead. This file
hands things from room to room and logs; it computes nothing itself.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from steer_heal_love import base, previews, replicas, steps
from steer_heal_love.conclusion import conclude
from steer_heal_love.config import PLACES, RunConfig
from steer_heal_love.control import TRANSFER, control, transferred
from steer_heal_love.gates.loop import stop_reason
from steer_heal_love.ground import purposes, records
from steer_heal_love.ground.errors import Diverged, Starved, resumable
from steer_heal_love.ground.identity import Warn
from steer_heal_love.ground.progress import Show, Track, labelled, silent, unseen
from steer_heal_love.ground.step import Step
from steer_heal_love.nouns import Adapter, Completion, Healing, Preview, Round
from steer_heal_love.session import Run, Session, created, ignored, note_what_is_odd, opened
from steer_heal_love.vector import Vector


def run(
    settings: RunConfig | None = None,
    *,
    resume: str | Path | None = None,
    track: Track = silent,
    warn: Warn = ignored,
    show: Show = unseen,
    **overrides: Any,
) -> Run:
    """Run the whole loop and return the finished run. Its `folder` says where it lies, its `summary` what came out.

    `settings`: the whole configuration; without it, the preset follows the device.
    `overrides`: fields of `RunConfig`, nested ones as dicts. With `resume` only those that say where to compute.
    `resume`: the folder of a run to continue.
    `track`, `warn`, `show`: called with the progress, with what differs from the machine that a resumed run began on,
    and with each model's answer to one question.

    Raises `UserError` before anything is written if the settings, the persona or the model are wrong. Raises `Starved`
    or `Diverged` if the run has to stop; everything up to the last good round is then in the folder.
    """
    if resume:
        trusts = bool(overrides.get("trust_remote_code"))
        placed = {name: overrides[name] for name in PLACES if name in overrides}
        session = opened(Path(resume), track, trust_remote_code=trusts, warn=warn, **placed)
    else:
        session = created(settings, overrides, track)
    session.show = show
    path = session.folder.path
    with (
        resumable(f"shl run --resume {shlex.quote(str(path))}"),
        session.folder.locked(),
        replicas.together(session.config, path),
        records.set_aside(),
    ):
        session.folder.event("start", resumed=bool(resume))
        if resume:
            note_what_is_odd(session.model, session.folder)
        vector = extracted(session, 0)
        previewed(session, 0, previews.FIRST, lambda: previews.first_preview(session, vector))
        return every_round(Run.on(session, base.measured(session)))


def every_round(r: Run) -> Run:
    """Every round on a run whose base has been measured; ends early where the text is past the floor or nothing is gained."""
    track = r.track
    try:
        for number in range(r.config.rounds):
            r.track = labelled(track, f"round {number}")
            one_round(r, number)
            if stop := stop_reason(r.evidence, r.config.patience):
                r.folder.event("stop", round=number, reason=stop)
            conclude(r, goes_on=not stop and number + 1 < r.config.rounds)
            if stop:
                break
    except (Starved, Diverged) as e:
        r.folder.event(type(e).__name__.lower(), reason=str(e))
        conclude(r)
        raise
    finally:
        r.aside.settle()
        r.track = track
    r.folder.event("end", gates={g.gate: g.verdict for g in r.gates})
    return r


def one_round(r: Run, number: int) -> None:
    """Vector → steered completions → filter → heal → bake → evaluate, on the student that the earlier rounds made."""
    vector, completions = steered(r, number)
    this = r.put(steps.begun(r, number, vector, completions))
    used, dose = enough(r, this, completions)

    teacher_dose, before = r.rounds[0].walk.dose or 0.0, r.rounds[number - 1].healing if number else None
    adapter, healing = healed(r, number, used, vector, dose=teacher_dose, before=before)
    this = r.put(replace(this, healing=healing))
    r.history = [*r.history, adapter]

    previewed(r, number, previews.EACH, lambda: previews.preview(r, number, vector, dose))
    stages = r.once(steps.EVALUATE, number, lambda: steps.scored(r, number, vector, dose))
    r.stages += stages
    if r.config.eval.transfer != "off":
        plain = control(r) if r.config.eval.transfer == "full" else None
        carried = r.once(TRANSFER, number, lambda: transferred(r, number, vector, plain))
        r.put(replace(this, transfer=carried))


def steered(r: Run, number: int) -> tuple[Vector, list[Completion]]:
    """The round's vector, and every completion made with it, judged.

    The dose is walked: each pass generates at several doses and filters, until the dose is found.
    """
    vector, passes = extracted(r, number), itertools.count()

    def attempt(doses: list[float]) -> list[Completion]:
        made = steps.sample(r, vector, doses, seed=r.seed(purposes.WALK, number, next(passes)))
        return steps.judge(r, made)

    return vector, r.once(steps.GENERATE, number, lambda: steps.walked(r, number, vector, attempt))


def extracted(s: Session, number: int) -> Vector:
    """The round's vector, read from the student as it stands. Round 0's needs nothing but the base."""
    return s.once(steps.VECTOR, number, lambda: steps.steer(s))


def enough(r: Run, this: Round, completions: list[Completion]) -> tuple[list[Completion], float]:
    """The completions that the round trains on, and the dose that it found. Raises `Starved` where they are too few."""
    if this.walk.starved or this.walk.dose is None:
        raise Starved(
            f"round {this.number}: {this.walk.used} completions survived the filter, {r.config.filter.least} are needed. "
            "The report says why the others fell; what was healed before is kept."
        )
    return [c for c in completions if c.used], this.walk.dose


def healed(
    r: Run,
    number: int,
    used: list[Completion],
    vector: Vector,
    *,
    dose: float,
    before: Healing | None = None,
) -> tuple[Adapter, Healing]:
    """The round's adapter and how its training went. The teacher is steered at `dose`, in a run the one that round 0
    found; `before` is the heal of the round before."""
    train = partial(steps.train, r, number, used, vector, dose=dose, before=before)
    return r.once(steps.HEAL, number, train)


def previewed(s: Session, number: int, step: Step[list[Preview]], make: Callable[[], list[Preview]]) -> None:
    """Answers to one question, shown as soon as they are there, and shown again by a resumed run."""
    for look in s.once(step, number, make):
        s.show(look)
