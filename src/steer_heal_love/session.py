"""A run in memory: made new or opened again, with everything that can be wrong read before anything is written."""

from __future__ import annotations

import datetime
import random
import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from steer_heal_love import bake, evals, gates, manifest, presets, replicas
from steer_heal_love import filter as sieve
from steer_heal_love.config import GenerateConfig, RunConfig
from steer_heal_love.evals import nulls
from steer_heal_love.gates import Evidence
from steer_heal_love.generate import engine
from steer_heal_love.ground import folder as files
from steer_heal_love.ground import identity, loading, made, memory, models, records, spread
from steer_heal_love.ground.aside import Aside
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.folder import RunFolder
from steer_heal_love.ground.identity import Warn
from steer_heal_love.ground.last import Last
from steer_heal_love.ground.operations import operations
from steer_heal_love.ground.progress import Show, Track, silent, unseen
from steer_heal_love.ground.shown import shown
from steer_heal_love.ground.state_cache import StateCache
from steer_heal_love.ground.states import States
from steer_heal_love.ground.step import Step
from steer_heal_love.ground.untrusted import json_object
from steer_heal_love.ground.weights import Folds, folded, placed
from steer_heal_love.heal import divergences
from steer_heal_love.heal.examples import Example
from steer_heal_love.nouns import Adapter, Completion, Gate, Json, Persona, Round, Stage, Tokens
from steer_heal_love.persona import load as load_persona
from steer_heal_love.persona import path as persona_path
from steer_heal_love.vector import Vector, applied_by, condition_file, methods

T = TypeVar("T")


def ignored(_message: str) -> None:
    """Nobody is told."""


@dataclass
class Session:
    """A model with its tokenizer, a persona and a folder: what a run stands on before anything is measured."""

    config: RunConfig
    persona: Persona
    model: Any
    tok: Any
    folder: RunFolder
    track: Track = silent
    show: Show = unseen

    def measured(self, completions: list[Completion]) -> list[Completion]:
        """Every check's value, read by the pristine base."""
        cfg = self.config
        return sieve.measured(
            self.model,
            self.tok,
            completions,
            self.persona,
            cfg.filter.checks,
            batch_tokens=cfg.batch_tokens,
            track=self.track,
        )

    def student(self) -> AbstractContextManager[None]:
        """The model that a round starts from: the base, before any round."""
        return nullcontext()

    def seed(self, *purpose: int) -> int:
        """A seed for one purpose, so that a resumed run draws what an unbroken one would."""
        return seed_for(self.config.seed, *purpose)

    def once(self, step: Step[T], number: int, make: Callable[[], T]) -> T:
        """The result of a round's step: read back where it lies in the run folder, else made and saved there."""
        return step.once(self.folder, self.folder.round(number), make, round=number)


@dataclass(frozen=True)
class Base:
    """What every round needs of the pristine base."""

    anchor: list[Example] = field(default_factory=list)
    """its own answers to neutral prompts, which hold a heal to it"""
    neutral: list[tuple[str, Tokens, Tensor]] = field(default_factory=list)
    """held-out neutral prompts, its own answers, its hidden states over them: what drift is measured on"""
    bounds: dict[str, float] = field(default_factory=dict)
    """what each check of the filter may read at most, or at least"""
    calibration: list[Completion] = field(default_factory=list)
    """its own samples that the bounds were drawn from, judged by them"""
    coherent: float = 1.0
    """share of those that are coherent"""
    nulls: nulls.Nulls = field(default_factory=dict)
    prepared: Json = field(default_factory=dict)
    """what instruments made once, by their names"""
    stages: list[Stage] = field(default_factory=list)
    """the base as it is, and as it is told"""


@dataclass
class Run(Session):
    """What a run holds in memory; everything in it can be read back from `folder`."""

    base: Base = field(kw_only=True)
    history: list[Adapter] = field(default_factory=list)
    """the rounds' adapters, which are the student"""
    stages: list[Stage] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    cache: StateCache = field(default_factory=StateCache, init=False)
    """hidden states of this student and of the one before, which are wanted more than once; no copy of a run has them"""
    base_tags: dict[Any, States] = field(default_factory=dict, init=False)
    """the base's states at the tag over the contexts, by where they are read"""
    wholes: Last[Adapter] = field(default_factory=Last, init=False)
    """the one adapter that the rounds make which were asked for last"""
    unsteered: Vector | None = field(default=None, init=False)
    """the own shift of the control student, once it was asked for"""
    folds: Folds = field(default_factory=Last, init=False)
    """the weights of the student that was folded last"""
    aside: Aside = field(default_factory=Aside, init=False)
    """what the last conclusion left to others"""

    @classmethod
    def on(cls, session: Session, base: Base) -> Run:
        """A run of a base that was measured, before its first round."""
        return cls(**vars(session), base=base, stages=list(base.stages))

    def put(self, this: Round) -> Round:
        """Keep what is known of a round so far, in place of what was known of it before."""
        self.rounds = [*(r for r in self.rounds if r.number != this.number), this]
        return this

    def student(self) -> AbstractContextManager[None]:
        """The base with every round so far folded in."""
        return self.after(self.history)

    def after(self, rounds: list[Adapter]) -> AbstractContextManager[None]:
        """The base with these rounds folded in."""
        return folded(self.model, rounds, self.folds)

    def whole(self, rounds: list[Adapter]) -> Adapter:
        """These rounds as one adapter on the model's device; the last one that was asked for is remembered."""
        known = self.wholes.of(rounds)
        return known or self.wholes.keep(rounds, bake.stack([placed(self.model, a) for a in rounds]))

    @property
    def evidence(self) -> Evidence:
        cfg = self.config
        return Evidence(self.persona, self.stages, self.rounds, cfg.eval.resamples, cfg.coherence_floor)

    @property
    def gates(self) -> list[Gate]:
        return gates.judge(self.evidence)

    @property
    def summary(self) -> Json:
        return records.read_json(self.folder.path / "summary.json")


def created(
    settings: RunConfig | None,
    overrides: Json,
    track: Track,
    *,
    first: Callable[[RunConfig, Path], None] = lambda _cfg, _path: None,
) -> Session:
    """A new run: everything that can be wrong is read before the folder is made. `first` writes what a run of its kind has
    before anything else, so that a run which is killed at once is still known for what it is."""
    cfg = presets.resolved(overrides, settings)
    who = load_persona(cfg.persona)
    cfg.check()
    known(cfg)
    replicas.plan(cfg)
    model, tok = loaded(cfg, track)
    if cfg.condition.file:
        condition_file.read(Path(cfg.condition.file))[0].fits(model, shown(cfg.condition.file))
    now = datetime.datetime.now(datetime.UTC)
    persona, name = (re.sub(r"[^A-Za-z0-9.-]+", "-", text) for text in (who.name, Path(cfg.model).name))
    folder = RunFolder.create(Path(cfg.out), f"{now:%Y%m%dT%H%M%SZ}-{persona}-{name}-s{cfg.seed}")
    first(cfg, folder.path)
    return begun(cfg, model, tok, folder, track)


def loaded(cfg: RunConfig, track: Track = silent) -> tuple[Any, Any]:
    """The model and tokenizer that the settings name, within the memory that they allow.

    Raises `UserError` for an engine of generation that can't do what the settings ask, or doesn't know the model.
    """
    engine.allow(cfg)
    device = models.known_device(cfg.device)
    for each in spread.devices(device, cfg.split) or [device]:
        memory.limit(cfg.memory_gb, str(each))
    with track(f"load {cfg.model}", 1):
        model, tok = models.load(
            cfg.model,
            device=device,
            dtype=cfg.dtype,
            template=cfg.template,
            trust_remote_code=cfg.trust_remote_code,
            split=cfg.split,
        )
    engine.fit(cfg.generate, model)
    return model, tok


def begun(cfg: RunConfig, model: Any, tok: Any, folder: RunFolder, track: Track) -> Session:
    """A run on a model in memory: its settings and persona are written first, its manifest last."""
    files.save_config(cfg, folder.path / "config.toml")
    with records.whole(folder.path / "persona.toml") as scratch:
        shutil.copyfile(persona_path(cfg.persona), scratch)
    if cfg.template:  # a file of the user's may change or go; the run keeps what it was made with
        records.write_text(folder.path / "chat_template.jinja", str(tok.chat_template))
    given = made.hashes(folder.path, [folder.path / name for name in manifest.GIVEN])
    records.write_json(folder.path / "manifest.json", manifest.of(cfg, model, tok) | {"files": given})
    note_what_is_odd(model, folder)
    return Session(cfg, load_persona(cfg.persona), model, tok, folder, track)


def note_what_is_odd(model: Any, folder: RunFolder) -> None:
    """Log what is odd about a model as it was loaded now, unless the run's log has it: on another device other kernels serve."""
    said = {e.get("message") for e in folder.event.read() if e["event"] == "warning"}
    for note in loading.notes(model):
        if (message := f"the model: {note}") not in said:
            folder.event("warning", message=message)


def reference_sampling(cfg: RunConfig) -> GenerateConfig:
    """How the base's answers are drawn that drift is measured on: alike in every run and every `shl eval`, whatever engine
    writes the training text."""
    plain = replace(cfg.generate, engine=engine.REFERENCE, engine_options=())
    return replace(plain, temperature=cfg.eval.temperature, min_p=cfg.eval.neutral_min_p)


def seed_for(seed: int, *purpose: int) -> int:
    """The seed of one purpose (`ground.purposes`) in a run of this seed: what a resumed run, and `shl eval`, draw with too."""
    return random.Random(repr((seed, *purpose))).getrandbits(31)


def known(cfg: RunConfig) -> None:
    """Raise `UserError` for the first plug-in that is named in the settings and does not exist, or lacks something."""
    named = [
        (methods, [cfg.vector.method]),
        (operations, [cfg.adapt.operation]),
        (divergences, [cfg.heal.divergence]),
        (sieve.checks, cfg.filter.checks),
    ]
    for registry, names in named:
        for name in names:
            registry[name]  # type: ignore[index]
    applied_by(cfg.vector.method, cfg.adapt.operation)
    engine.allow(cfg)
    if cfg.condition.persona:
        load_persona(cfg.condition.persona)
    if cfg.condition.file:
        condition_file.read(Path(cfg.condition.file))
    evals.ready(cfg.eval)
    evals.chosen_probes(load_persona(cfg.persona), cfg.eval)


def opened(
    path: Path, track: Track, *, trust_remote_code: bool = False, warn: Warn = ignored, **placed: Any
) -> Session:
    """An existing run, with the settings and the persona file that it was started with; `placed` are other values of
    those settings that say where it computes (`config.PLACES`).

    Code that comes with its model is run only where the caller trusts it too, whatever the run's settings say. Raises
    `UserError` for a folder whose files are not those that the run wrote, and where another process writes to it.
    """
    if manifest.barely_begun(path):
        s = begun_again(path, track, trust_remote_code=trust_remote_code, **placed)
        return replace(s, config=replace(s.config, **placed))
    folder = RunFolder.open(path)
    cfg = replace(presets.read(path / "config.toml", trust_remote_code=trust_remote_code), **placed)
    cfg.check()
    folder.check()
    was = identity.of_run(path)
    if (seed := manifest.seed(path)) != cfg.seed:
        raise UserError(
            f"{shown(path)}: config.toml has seed {cfg.seed}, the run was made with {seed!r:.40}; nothing was changed."
        )
    with folder.locked():
        pass  # told now, before anyone waits for a model; the run itself holds it from its first step on
    kept = path / "chat_template.jinja"
    model, tok = loaded(replace(cfg, template=str(kept)) if cfg.template and kept.is_file() else cfg, track)
    identity.check(model, tok, was, where=path, name=cfg.model, warn=warn)
    same_questions(cfg, path, warn)
    return Session(cfg, load_persona(str(path / "persona.toml")), model, tok, folder, track)


def same_questions(cfg: RunConfig, path: Path, warn: Warn) -> None:
    """Raise `UserError` where the user's own vignettes are not those that the run began with: scores of both would be
    paired. `warn` where questions that come with the tool have changed."""
    file = path / "manifest.json"
    had = json_object(file, str(file)).data.get("data")
    had = had if isinstance(had, dict) else {}
    changed = [name for name, now in evals.bank_hashes(cfg.eval).items() if had.get(name, now) != now]
    if "vignette_bank" in changed:
        raise UserError(
            f"{shown(path)}: eval.vignette_bank, {shown(cfg.eval.vignette_bank)}, is not what it was when the run began; "
            "nothing was changed."
        )
    if changed:
        warn(f"{shown(path)}: was begun with other questions than this version has: {', '.join(changed)}.")


def walked_dose(run: Path) -> float | None:
    """The dose that round 0 found, where the run's summary has one. Raises `UserError` for a summary that is no JSON object."""
    file = run / "summary.json"
    walks = json_object(file, str(file)).data.get("walks") if file.is_file() else None
    first = walks[0] if isinstance(walks, list) and walks else None
    found = first.get("dose") if isinstance(first, dict) else None
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def begun_again(path: Path, track: Track, *, trust_remote_code: bool, **placed: Any) -> Session:
    """The run whose beginning was cut short, begun in the same folder with the settings that lie there; its model is loaded
    as `placed` says."""
    files.enclosed(path)
    cfg = presets.read(path / "config.toml", trust_remote_code=trust_remote_code)
    cfg.check()
    known(cfg)
    folder = RunFolder(path)
    with folder.locked():
        return begun(cfg, *loaded(replace(cfg, **placed), track), folder, track)
