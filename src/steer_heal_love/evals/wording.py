"""How well can the base merely be told? The best of several wordings of the persona's system prompt.

Each wording is measured by the probes' likelihood alone, on the search half of the probes (every second one); the one
with the largest mean trait_shift is what the prompted model of a run is told. One wording would leave open whether a
healed model beats the prompt or an unlucky sentence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from steer_heal_love.config import EvalConfig
from steer_heal_love.evals import Subject, wanted
from steer_heal_love.evals.probes import probes
from steer_heal_love.ground.progress import Advance
from steer_heal_love.ground.stats import paired
from steer_heal_love.nouns import WORDINGS, Persona, Score


@dataclass(frozen=True)
class Tried:
    """One wording of the pos pole, and the trait_shift that it reaches on the search half, in nats per token."""

    wording: int
    system: str
    trait_shift: Score


@dataclass(frozen=True)
class Chosen:
    """The wording that the prompted model is told, and all that it was chosen from; none where probes aren't asked."""

    wording: int
    system: str
    tried: list[Tried]


def searched(s: Subject) -> Subject:
    """The subject with the search half of the probes, pos and neg answers only."""
    bare = tuple(replace(p, neutral="", off_topic="") for p in s.persona.probes)
    return replace(s, persona=replace(s.persona, probes=bare), config=replace(s.config, probe_half="search"))


def asked(config: EvalConfig) -> bool:
    """Whether a wording is searched for: where the settings say so and probes are measured."""
    return config.wordings and any(i.name == "probes" for i in wanted(config))


def first(persona: Persona) -> Chosen:
    """The first wording, where none is searched for."""
    return Chosen(0, persona.system("pos"), [])


def choose(s: Subject, advance: Advance = lambda _n: None) -> Chosen:
    """Try every wording; the first where none can be told from it. Call with the model pristine."""
    half = searched(s)
    base = probes(half)["trait"]
    advance(1)
    tried = []
    for k in range(len(WORDINGS)):
        system = s.persona.system("pos", k)
        found = probes(replace(half, system=system))["trait"]
        tried.append(Tried(k, system, paired(found, base, resamples=s.config.resamples)))
        advance(1)
    best = max(tried, key=lambda t: t.trait_shift.mean if math.isfinite(t.trait_shift.mean) else -math.inf)
    return Chosen(best.wording, best.system, tried)


def count() -> int:
    """Readings of the probes: the base's, and one a wording."""
    return 1 + len(WORDINGS)
