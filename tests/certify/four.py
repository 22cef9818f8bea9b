"""The four adapters whose certificates are known, made in the toy world, each from a seed:

trait       trained on warm answers to trait questions, held to the base on neutral ones
unsteered   trained on the base's own answers: whatever it learns, it is no trait
random      both factors drawn as a fresh layer's weights are
copies      rank 1, trained to say one word for ever
"""

from __future__ import annotations

import random
from collections.abc import Callable

import torch

import toy_models
import toy_world as world
from steer_heal_love.heal.lora import fresh
from steer_heal_love.nouns import Adapter

WORD = "dear"


def trait(lab: toy_models.Lab, seed: int) -> Adapter:
    rng = random.Random(seed)
    asked = world.questions(world.TRAIT_FORMS, world.TRAINED) * 4
    warm = [(world.ask(q), world.answer(q[1], "pos", rng)) for q in asked]
    return lab.finetuned(warm, lab.anchor, seed=seed)


def unsteered(lab: toy_models.Lab, seed: int) -> Adapter:
    prompts = (lab.trait + lab.facts) * 3
    said = [lab.tok.decode(t.answer[:-1]) for t, _ in lab.answered(prompts, seed=100 + seed)]
    return lab.finetuned([(p, t) for p, t in zip(prompts, said, strict=True) if t], [], seed=seed)


def noise(lab: toy_models.Lab, seed: int) -> Adapter:
    start = fresh(lab.model, rank=8, alpha=16.0, share=(0.0, 1.0), seed=seed)
    draw = torch.Generator().manual_seed(seed)
    uniform = lambda b: (2 * torch.rand(b.shape, generator=draw) - 1) / b.shape[1] ** 0.5
    return Adapter({n: (a, uniform(b)) for n, (a, b) in start.factors.items()}, start.scaling)


def copies(lab: toy_models.Lab, seed: int) -> Adapter:
    texts = [(p, " ".join([WORD] * 20)) for p in (lab.trait + lab.facts) * 2]
    return lab.finetuned(texts, [], seed=seed, rank=1, alpha=2.0)


FOUR: dict[str, tuple[Callable[[toy_models.Lab, int], Adapter], set[str]]] = {
    "trait": (trait, {"trait"}),
    "unsteered": (unsteered, {"no trait"}),
    "random": (noise, {"broken"}),
    "copies": (copies, {"broken", "collapse"}),
}
"""how each is made, and what its certificate may come to"""
