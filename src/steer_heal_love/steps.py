"""The steps of a round, which `loop.py` tells the order of: each takes what it needs of the run, and hands on what a room made.

Nothing here is written or logged but a heal's warnings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from steer_heal_love import bake, base, evals
from steer_heal_love import filter as sieve
from steer_heal_love.conditions import steered_on
from steer_heal_love.filter.record import recorded
from steer_heal_love.filter.walk import at, walk
from steer_heal_love.generate import generate
from steer_heal_love.ground import purposes, records, written
from steer_heal_love.ground.banks import bank
from steer_heal_love.ground.chat import end_of_turn_ids, prompt_ids
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.ground.operations import Steering
from steer_heal_love.ground.policy import Policy, band
from steer_heal_love.ground.scoring import token_nll
from steer_heal_love.ground.step import COMPLETIONS, JSON, STAGES, Codec, Step
from steer_heal_love.ground.untrusted import shaped
from steer_heal_love.heal.examples import referred, unread
from steer_heal_love.heal.teacher import teacher_states
from steer_heal_love.heal.train import heal
from steer_heal_love.heal.trust import fit_to_budget
from steer_heal_love.nouns import (
    Adapter,
    Completion,
    Healing,
    Json,
    Round,
    Stage,
    StageName,
    VectorRecord,
)
from steer_heal_love.persona import training_prompts
from steer_heal_love.session import Run, Session
from steer_heal_love.vector import Vector
from steer_heal_love.vector.iso_kl import Trials, iso_kl


def save_healed(value: tuple[Adapter, Healing], path: Path) -> None:
    adapter, record = value
    bake.save_peft(adapter, path.parent / "adapter", base_model="see manifest.json")
    records.write_json(path, asdict(record))


def load_healed(path: Path) -> tuple[Adapter, Healing]:
    row = shaped(written.renamed(records.read_json(path)), written.HEALING)
    curves = {
        name: [{k: math.nan if v is None else v for k, v in point.items()} for point in row[name]]
        for name in ("steps", "validation", "gradient_ratios")
    }
    return bake.load_peft(path.parent / "adapter"), Healing(**(row | curves))


VECTOR = Step("vector", "vector.safetensors", Codec(Vector.load, Vector.save))
DOSE: Step[Json] = Step("dose", "dose.json", JSON)
GENERATE = Step("generate", "completions.jsonl", COMPLETIONS)
HEAL = Step("heal", "healing.json", Codec(load_healed, lambda value, path: save_healed(value, path)))
EVALUATE: Step[list[Stage]] = Step("evaluate", "scores.json", STAGES)


def contexts(s: Session) -> list[str]:
    """What the vector, and later the student's own shift, is read over."""
    return bank("contexts")[: s.config.vector.contexts]


def steer(s: Session) -> Vector:
    """The persona's vector, read from the student as it stands."""
    cfg = s.config.vector
    with s.student():
        return Vector.train(
            s.model,
            s.tok,
            s.persona,
            contexts=contexts(s),
            method=cfg.method,
            contrast=cfg.contrast,
            layers=cfg.layers,
            hook=cfg.hook,
            batch_tokens=s.config.batch_tokens,
            track=s.track,
        )


def sample(r: Run, vector: Vector, doses: list[float], *, seed: int) -> list[Completion]:
    """The student's answers to training prompts under the neutral system prompt, steered at each of the doses."""
    prompts = training_prompts(steered_on(r), r.config.generate.prompts, seed=seed)
    label = f"generate at {doses[0]:.2g}–{doses[-1]:.2g}"
    write = partial(generate, r.model, r.tok, prompts, doses, config=r.config.generate, seed=seed)
    adapt = policy(r)
    with r.student():
        return write(
            directions=vector.directions,
            operation=r.config.adapt.operation,
            adapt=adapt,
            track=r.track,
            label=label,
        )


def policy(r: Run) -> Policy | None:
    """How the dose adapts while text is written; None where nothing of it is asked for. The band is that of the base's own
    answers, read by the pristine base."""
    a = r.config.adapt
    if not a.adapts:
        return None
    around = (-math.inf, math.inf)
    if a.rewinds:
        own = [c.tokens for c in r.base.calibration]
        around = band(token_nll(r.model, own, batch_tokens=r.config.batch_tokens), a.window, a.quantile)
    return Policy(a.half_life or math.inf, a.cap_nats or math.inf, a.rewinds, a.shrink, a.window, around)


def judge(r: Run, completions: list[Completion]) -> list[Completion]:
    """Every check's value, read by the pristine base, and its verdict."""
    return sieve.judge(r.measured(completions), r.base.bounds)


def dosed(r: Run, number: int, vector: Vector, start: float | None) -> Json:
    """The dose at which the student's steered answers diverge by `walk.nats`, and what was measured there."""
    cfg, seed = r.config, r.seed(purposes.ISO_KL, number)
    prompts = training_prompts(steered_on(r), cfg.generate.prompts, seed=seed)
    rendered = [prompt_ids(r.tok, p) for p in prompts]
    trials = Trials(rendered, end_of_turn_ids(r.model, r.tok), cfg.generate, seed, cfg.batch_tokens)
    with r.student():
        (found,) = iso_kl(
            r.model,
            Steering(vector.directions, cfg.adapt.operation),
            [cfg.walk.nats],
            trials,
            start=start or cfg.walk.start,
            track=r.track,
        )
    return asdict(found) | {"reached": found.reached}


def walked(
    r: Run, number: int, vector: Vector, attempt: Callable[[list[float]], list[Completion]]
) -> list[Completion]:
    """Every completion made on the way to the dose; `used` are the most on-trait of those that survive up to it."""
    cfg = r.config
    start = r.rounds[-1].walk.dose if r.rounds else None
    if cfg.walk.kind == "survival":
        found = walk(attempt, cfg.walk, base=r.base.coherent, start=start, least=cfg.filter.least)
    else:
        raw = cfg.walk.kind == "raw"
        dose = (
            cfg.walk.start if raw else r.once(DOSE, number, lambda: dosed(r, number, vector, start))["dose"]
        )
        found = at(attempt, dose, cfg.walk, least=cfg.filter.least)
    eligible = [c for c in found.completions if found.dose is not None and c.dose <= found.dose]
    sieve.select(eligible, cfg.filter.keep)
    return found.completions


def begun(r: Run, number: int, vector: Vector, completions: list[Completion]) -> Round:
    """The round before its heal: what the vector says of itself, what the walk and the filter counted."""
    first = Vector.load(r.folder.round(0) / VECTOR.file)
    cfg, told = r.config, VectorRecord(vector.norm(), vector.cosine(first), vector.meta["reliability"])
    found = recorded(
        completions, r.base.calibration, coherent=r.base.coherent, walk=cfg.walk, filter=cfg.filter
    )
    return Round(number, told, found)


def train(
    r: Run,
    number: int,
    used: list[Completion],
    vector: Vector,
    *,
    dose: float,
    before: Healing | None = None,
) -> tuple[Adapter, Healing]:
    """Heal on the student; the barrier's reference is the pristine base or that student itself.

    The teacher is steered at `dose`. `before` is the heal of the round before, which says what is left of the budget.
    """
    cfg, seed = r.config, r.seed(purposes.HEAL, number)
    r.wholes.forget()
    with nullcontext() if cfg.heal.reference == "base" else r.student():
        kept = referred(r.model, unread(used), cfg.heal, seed=seed, batch_tokens=cfg.batch_tokens)
    with r.student():
        if cfg.heal.soft:
            teachers = teacher_states_of(r, used, vector, dose)
            kept = [replace(e, teacher=h) for e, h in zip(kept, teachers, strict=True)]
        adapter, record = heal(
            r.model,
            kept,
            r.base.anchor,
            cfg.heal,
            round=number,
            seed=seed,
            batch_tokens=cfg.batch_tokens,
            track=r.track,
        )
    if cfg.heal.budget:
        record = fitted(r, number, adapter, record, before)
    for warning in record.warnings:
        r.folder.event("warning", round=number, message=warning)
    return adapter.scaled(record.scale), record


def teacher_states_of(
    r: Run, used: list[Completion], vector: Vector, dose: float
) -> list[Float[Tensor, "t d"]]:
    """The teacher's states over these completions, steered at `dose`; call with the student folded in."""
    return teacher_states(
        r.model,
        [c.tokens for c in used],
        partial(vector, r.model),
        dose=dose,
        gain=r.config.heal.teacher,
        first=min(vector.directions),
        batch_tokens=r.config.batch_tokens,
        track=r.track,
    )


def fitted(r: Run, number: int, adapter: Adapter, record: Healing, before: Healing | None) -> Healing:
    """The record with the scale that the trust region leaves of the update, and what the model then costs."""
    earlier = r.whole(r.history)
    scale, spent = fit_to_budget(
        r.model,
        lambda scale: beside(r, bake.stack([earlier, adapter.scaled(scale)])),
        r.base.anchor,
        r.config.heal,
        number=number,
        rounds=r.config.rounds,
        before=before,
        batch_tokens=r.config.batch_tokens,
        track=r.track,
    )
    return replace(record, scale=scale, spent=spent)


def exported(r: Run, rounds: list[Adapter]) -> AbstractContextManager[None]:
    """The model that users get: all rounds as one LoRA beside the pristine weights."""
    return beside(r, r.whole(rounds))


def beside(r: Run, whole: Adapter) -> AbstractContextManager[None]:
    """The pristine model with one LoRA beside its weights."""
    return adapted(r.model, whole.factors, whole.scaling)


def subject(r: Run, **told: Any) -> evals.Subject:
    """What every instrument is given of this run. `told`: what it has that others don't, such as a `system` prompt."""
    return base.of(r, r.base, **told)


def evaluated(
    r: Run, name: StageName, number: int, *contexts: Any, dose: float | None = None, **told: Any
) -> Stage:
    """One evaluation in the contexts, paired with the run's base and set beside the nulls."""
    return base.evaluated(r, r.base, name, number, *contexts, dose=dose, **told)


def scored(r: Run, number: int, vector: Vector, dose: float) -> list[Stage]:
    """This round's student, steered, as it was before its heal; and the model that all rounds make."""
    steered = (lambda: r.after(r.history[:-1]), lambda: vector(r.model, dose))
    r.cache.keep(evals.kept_as(named(number - 1), evals.NEUTRAL))
    whole = lambda: exported(r, r.history)
    draws = r.config.eval.healed_draws
    return [
        evaluated(r, "steered", number, *steered, dose=dose),
        evaluated(r, "healed", number, whole, draws=draws, cache=r.cache, known_as=named(number)),
    ]


def named(number: int) -> str:
    """What the student after a round is called in the run's cache of states."""
    return f"round {number}"
