"""Is a persona pair worth GPU hours? What can be known of it in a minute.

    lint          what is wrong with the pair's wording and its banks
    reliability   cosine of the vectors of two halves of the contexts
    separability  by layer: AUC of pos states against neg states, projected on the direction of the other contexts
    effect        shift of the probes a nat, at equal nats with a random direction of the same norms
    off target    share of the direction's length that lies in the span of other personas' directions

AUC is the chance that a pos state lies further along the direction than a neg one: 0.5 says nothing, 1 tells all apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from steer_heal_love.ground import models
from steer_heal_love.ground.operations import Steering
from steer_heal_love.ground.stats import CROSS_FITTED, bootstrap, proportion, subtract
from steer_heal_love.nouns import Persona, Score
from steer_heal_love.persona.lint import lint_persona
from steer_heal_love.sweep.bed import Bed, Cell, laid
from steer_heal_love.vector import Vector
from steer_heal_love.vector.controls import random_like
from steer_heal_love.vector.iso_kl import iso_kl

FOLDS = 5
RELIABLE = 0.5
"""least cosine of the vectors that two halves of the contexts give"""
CROWDED = 0.9
"""share of a direction's length in the span of the others past which it is not a direction of its own"""
Verdict = Literal["worth it", "undecided", "not worth it"]
Along = Callable[[Float[Tensor, "n d"], Float[Tensor, "n d"]], Float[Tensor, " d"]]
"""a direction from the states of either pole"""


class Found(TypedDict):
    """What is known before the verdict, as `Preflight` has it."""

    lint: list[str]
    reliability: float
    separability: dict[int, Score]
    effect: Cell
    random: Cell
    above_random: Score
    cosines: dict[str, float]
    off_target: float


@dataclass(frozen=True)
class Preflight:
    """What is known of a pair before any run, and a verdict with its reasons."""

    persona: str
    nats: float
    lint: list[str]
    reliability: float
    separability: dict[int, Score]
    effect: Cell
    random: Cell
    above_random: Score
    """trait a nat of the direction less that of the random one, paired by probe"""
    cosines: dict[str, float]
    """with every other persona's direction"""
    off_target: float
    """share of the length in the span of all of them"""
    verdict: Verdict
    because: list[str]


def preflight(bed: Bed, others: Iterable[Persona], *, nats: float = 1.0, seed: int = 0) -> Preflight:
    """Everything, at the settings' own method and layers. `others`: personas whose directions count as off target."""
    cfg = bed.config.vector
    at = models.band(bed.model, cfg.layers)
    vector = bed.vector(cfg.method, at)
    effect, random = (
        effect_of(bed, v, name, nats, label)
        for v, name, label in (
            (vector, cfg.method, "effect"),
            (random_like(vector, seed), "random", "effect of a random direction"),
        )
    )
    apart = [[s / c.dose.kl_nats for s in c.shifts] for c in (effect, random)]
    above = bootstrap(subtract(*apart), resamples=bed.config.eval.resamples)
    rivals = {p.name: bed.rival(p, at, cfg.method) for p in others if p.name != bed.persona.name}
    found: Found = {
        "lint": lint_persona(bed.persona),
        "reliability": reliability(bed, at),
        "separability": {i: separability(bed.pos[i], bed.neg[i], along(bed, i)) for i in at},
        "effect": effect,
        "random": random,
        "above_random": above,
        "cosines": {name: vector.cosine(v) for name, v in rivals.items()},
        "off_target": in_span(vector, list(rivals.values())),
    }
    verdict, because = judged(found, nats)
    return Preflight(bed.persona.name, nats, **found, verdict=verdict, because=because)


def effect_of(bed: Bed, vector: Vector, name: str, nats: float, label: str) -> Cell:
    """What a direction does at these nats; `label` is what the wait for it is called."""
    steering = Steering(vector.directions)
    with bed.track(label, 1) as advance:
        (dose,) = iso_kl(bed.model, steering, [nats], bed.trials, start=bed.config.walk.start)
        found = bed.measured(name, bed.config.vector.layers, steering, dose)
        advance(1)
    return found


def reliability(bed: Bed, at: list[int]) -> float:
    """Cosine of the vectors of two halves of the contexts."""
    method = bed.config.vector.method
    poles = ([{i: pole[i][k::2] for i in at} for pole in (bed.pos, bed.neg)] for k in (0, 1))
    halves = [Vector(Vector(bed.found(method, *half)).moves(bed.neg)) for half in poles]
    return halves[0].cosine(halves[1])


def along(bed: Bed, layer: int) -> Along:
    """The direction that the settings' method gives at a layer from states there; of a map, where it moves their mean."""

    def direction(pos: Float[Tensor, "n d"], neg: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
        found = Vector(bed.found(bed.config.vector.method, {layer: pos}, {layer: neg}))
        return found.moves({layer: neg})[layer]

    return direction


def separability(pos: Float[Tensor, "n d"], neg: Float[Tensor, "n d"], direction: Along) -> Score:
    """Cross-validated AUC at one layer: each fold is projected on the direction of the other contexts."""
    fold = torch.arange(len(pos)) % min(FOLDS, len(pos))
    parts: list[float] = []
    for k in fold.unique():
        rest, mine = fold != k, fold == k
        v = direction(pos[rest], neg[rest])
        a, b = (np.asarray((pole[mine] @ v).tolist()) for pole in (pos, neg))
        parts += [float(((x > b) + 0.5 * (x == b)).mean()) for x in a]
    return proportion(parts, effect=CROSS_FITTED)


def in_span(vector: Vector, others: list[Vector]) -> float:
    """Share of the vector's length that lies in the span of the others, layer by layer, over all layers. A map's numbers of
    a layer count as one vector."""
    inside = 0.0
    for i, v in vector.directions.items():
        beside = [o.directions[i].float().flatten() for o in others if i in o.directions]
        if beside:
            basis = torch.linalg.qr(torch.stack(beside, 1)).Q
            inside += float((basis.T @ v.float().flatten()).pow(2).sum())
    return float(inside**0.5 / max(vector.norm(), 1e-12))


def judged(found: Found, nats: float) -> tuple[Verdict, list[str]]:
    """The verdict and its reasons: what speaks against the pair, or else what is not sure of it."""
    effect = found["effect"]
    best = max(found["separability"].values(), key=lambda s: s.lo, default=Score.undefined())
    against = [f"lint: {finding}" for finding in found["lint"]]
    if found["reliability"] < RELIABLE:
        against.append(
            f"two halves of the contexts give vectors of cosine {found['reliability']:.2f}, below {RELIABLE:g}."
        )
    if best.mean <= 0.5:
        against.append(
            "no layer tells the poles' states apart on contexts that the direction was not read on."
        )
    if effect.trait.hi < 0:
        against.append("steering moves the probes away from the pos pole.")
    unsure = []
    if not best.lo > 0.5:
        unsure.append(f"{best.n} contexts are too few to say that a layer tells the poles' states apart.")
    if not effect.trait.lo > 0:
        unsure.append("the probes' shift can't be told from zero.")
    if not found["above_random"].lo > 0:
        unsure.append("the probes' shift a nat can't be told from a random direction's.")
    if not effect.dose.reached:
        unsure.append(f"no dose was found at {nats:g} nats; the nearest has {effect.dose.kl_nats:.3g}.")
    if found["off_target"] > CROWDED:
        unsure.append(
            f"{found['off_target']:.0%} of the direction lies in the span of other personas' directions."
        )
    verdict: Verdict = "not worth it" if against else "undecided" if unsure else "worth it"
    return verdict, against or unsure


__all__ = ["Preflight", "laid", "preflight"]
