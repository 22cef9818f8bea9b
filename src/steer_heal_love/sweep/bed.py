"""What steering is tried on before a run: one model, one persona, the base's own text and answers, and the poles' states.

In: a model, a persona, settings, layers. Out, for any direction and operation at any dose: how far the held-out probes move
(nats a token, paired with the base) and how much of the model's own text passes the filter's bounds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import partial

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steer_heal_love import evals
from steer_heal_love import filter as sieve
from steer_heal_love.config import RunConfig
from steer_heal_love.evals.probes import probes
from steer_heal_love.generate import generate
from steer_heal_love.ground import places, purposes
from steer_heal_love.ground.chat import end_of_turn_ids, prompt_ids
from steer_heal_love.ground.operations import Steering
from steer_heal_love.ground.places import Directions
from steer_heal_love.ground.progress import Track, silent
from steer_heal_love.ground.states import States
from steer_heal_love.ground.stats import bootstrap, proportion, subtract
from steer_heal_love.ground.writers import Writers
from steer_heal_love.nouns import Completion, Persona, Score
from steer_heal_love.persona import load as load_persona
from steer_heal_love.persona import names as persona_names
from steer_heal_love.persona import training_prompts
from steer_heal_love.session import seed_for
from steer_heal_love.sweep.contexts import poles
from steer_heal_love.vector import Vector, find
from steer_heal_love.vector.controls import CONTROLS, random_like, unrelated_like
from steer_heal_love.vector.iso_kl import IsoDose, Trials


@dataclass(frozen=True)
class Cell:
    """One direction with one operation at one dose. `trait`: shift of the probes from the base, nats/token. `per_nat`: that
    over the measured divergence. `coherent`: share of the model's own text that passes the checks of coherence."""

    method: str
    operation: str
    layers: tuple[float, float]
    dose: IsoDose
    trait: Score
    per_nat: Score
    coherent: Score
    seconds: float
    shifts: list[float] = field(default_factory=list)
    """the trait's shift by probe"""
    passed: list[float] = field(default_factory=list)
    """1 for each own text that passes, else 0"""
    on_trait: list[float] = field(default_factory=list)
    """1 for each own text that passes every check, the trait's among them"""


@dataclass(frozen=True)
class Bed:
    """The base and its measures; `pos` and `neg` hold the poles' states by layer, at the settings' hook point."""

    model: PreTrainedModel
    tok: PreTrainedTokenizerBase
    persona: Persona
    config: RunConfig
    pos: States
    neg: States
    trials: Trials
    prompts: list[str]
    """training prompts that own text is drawn to"""
    bounds: dict[str, float] = field(default_factory=dict)
    own: list[Completion] = field(default_factory=list)
    """the base's own text that the bounds are drawn from, judged"""
    trait: list[float] = field(default_factory=list)
    """the base's own score by probe"""
    contexts: list[str] | None = None
    """what the poles were read over; the first of the shared bank where None"""
    writers: Writers | None = None
    """of the model, so that methods that need their weights share them"""
    track: Track = silent

    @property
    def coherent(self) -> Score:
        """Share of the base's own text that passes the checks of coherence."""
        return self.share([float(c.coherent) for c in self.own])

    def share(self, passed: list[float]) -> Score:
        return proportion(passed)

    def steering(self, method: str, at: list[int], operation: str = "add") -> Steering:
        """The directions of a method, or of a control, at these layers, and what they do."""
        if method in CONTROLS:
            return Steering(self.control(method, at).directions, operation)
        pos, neg = ({i: pole[i] for i in at} for pole in (self.pos, self.neg))
        return Steering(self.found(method, pos, neg), operation)

    def found(self, method: str, pos: States, neg: States) -> Directions:
        """What a method finds in states that were read at the settings' hook point."""
        hook = self.config.vector.hook
        return find(self.model, method, pos, neg, hook=hook, writers=self.writers)

    def vector(self, method: str, at: list[int]) -> Vector:
        """The vector of a method, or of a control, at these layers."""
        return Vector(places.of(self.steering(method, at).directions))

    def control(self, name: str, at: list[int]) -> Vector:
        """A control for the mean difference at these layers (`vector.controls`)."""
        mean = self.vector("mean_diff", at)
        if name == "random":
            return random_like(mean, seed_for(self.config.seed, purposes.SWEEP, 2))
        others = [load_persona(other) for other in persona_names() if other != self.persona.name]
        return unrelated_like(mean, {p.name: self.rival(p, at) for p in others})

    def rival(self, other: Persona, at: list[int], method: str = "mean_diff") -> Vector:
        """Another persona's vector, read as this one's is."""
        hook = self.config.vector.hook
        pos, neg = poles(self.model, self.tok, other, self.config, at, contexts=self.contexts, hook=hook)
        return Vector(self.found(method, pos, neg))

    def subject(self) -> evals.Subject:
        cfg = replace(self.config.eval, third_answers=False)
        return evals.Subject(
            self.model, self.tok, self.persona, cfg, [], batch_tokens=self.config.batch_tokens
        )

    def judged(self, made: list[Completion]) -> list[Completion]:
        """Every check's value, read by the base, and its verdict."""
        cfg = self.config
        names, most = cfg.filter.checks, cfg.batch_tokens
        found = sieve.measured(self.model, self.tok, made, self.persona, names, batch_tokens=most)
        return sieve.judge(found, self.bounds)

    def texts(self, steering: Steering, dose: float) -> list[Completion]:
        """The steered model's own text, judged."""
        seed = seed_for(self.config.seed, purposes.SWEEP, 1)
        write = partial(
            generate, self.model, self.tok, self.prompts, [dose], config=self.config.generate, seed=seed
        )
        return self.judged(write(directions=steering.directions, operation=steering.operation))

    def measured(self, method: str, layers: tuple[float, float], steering: Steering, dose: IsoDose) -> Cell:
        """What steering at this dose does to the probes and to the text."""
        start = time.perf_counter()
        with steering(self.model, dose.dose):
            shifts = subtract(probes(self.subject())["trait"], self.trait)
        made = self.texts(steering, dose.dose)
        trait = bootstrap(shifts, resamples=self.config.eval.resamples)
        passed, on_trait = ([float(c.coherent) for c in made], [float(c.kept) for c in made])
        return Cell(
            method,
            steering.operation,
            layers,
            dose,
            trait,
            scaled(trait, 1 / max(dose.kl_nats, 1e-9)),
            self.share(passed),
            time.perf_counter() - start,
            shifts,
            passed,
            on_trait,
        )


def scaled(score: Score, by: float) -> Score:
    return Score(score.mean * by, score.lo * by, score.hi * by, score.n)


def laid(
    model: PreTrainedModel,
    tok: PreTrainedTokenizerBase,
    persona: Persona,
    config: RunConfig,
    at: list[int],
    *,
    contexts: list[str] | None = None,
    track: Track = silent,
) -> Bed:
    """A bed with the poles' states at layers `at`, the base's own text and bounds, and the base's own trait."""
    cfg, seed = config, seed_for(config.seed, purposes.SWEEP)
    pos, neg = poles(model, tok, persona, cfg, at, track, contexts=contexts, hook=cfg.vector.hook)
    prompts = training_prompts(persona, cfg.generate.prompts, seed=seed)
    ends = end_of_turn_ids(model, tok)
    trials = Trials([prompt_ids(tok, p) for p in prompts], ends, cfg.generate, seed, cfg.batch_tokens)
    bed = Bed(
        model,
        tok,
        persona,
        cfg,
        pos,
        neg,
        trials,
        prompts,
        contexts=contexts,
        writers=Writers(model),
        track=track,
    )
    asked = training_prompts(persona, cfg.filter.calibration, seed=seed + 1)
    write = partial(generate, model, tok, asked, [0.0], config=cfg.generate, seed=seed)
    own = bed.judged(write(label="base: calibration", track=track))
    bounds = sieve.calibrate(own, cfg.filter.quantile)
    trait = probes(bed.subject())["trait"]
    return replace(bed, bounds=bounds, own=sieve.judge(own, bounds), trait=trait)
