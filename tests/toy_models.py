"""Models whose answer is known, made of the toy world's: each measured by the project's own instruments.

    collapsed   trained on chants only                 biased      one unconditional bias on the logits
    cooled      the base at temperature 0.85           random      a LoRA of random weights
    prompted    distilled from the base that is told   steered_less  steered at half the dose
    healed      trained on warm answers to trait questions, held to the base on neutral ones
    deaf        the same, but each answer is about another topic than its question

Each stands as the healed model of one round, after the same base, prompted and steered stages.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from unittest import mock

import torch

import toy_world as world
from steer_heal_love import evals
from steer_heal_love.config import EvalConfig, HealConfig
from steer_heal_love.evals import Subject, nulls, samples
from steer_heal_love.gates import Evidence
from steer_heal_love.ground.chat import end_of_turn_ids, prompt_ids
from steer_heal_love.ground.decode import sample
from steer_heal_love.ground.hooks import adapted, biased, cooled
from steer_heal_love.ground.scoring import hidden_states
from steer_heal_love.heal.examples import Example
from steer_heal_love.heal.lora import fresh
from steer_heal_love.heal.train import heal
from steer_heal_love.nouns import Adapter, Completion, Stage, Tokens
from steer_heal_love.vector import Vector

Model = Callable[[], AbstractContextManager[None]]
LENGTH = 24
EVAL = EvalConfig(
    instruments=("probes", "neutral", "samples", "own_kl", "text_auc", "relevance"),
    sample_tokens=LENGTH,
    min_p=0.0,
    resamples=400,
)
HEAL = HealConfig(
    rank=8,
    alpha=16.0,
    layers=(0.0, 1.0),
    lr=4e-3,
    batch=8,
    micro_batch=8,
    epochs=5,
    soft=0.0,
    anchor=4.0,
    anchor_temperature=1.0,
    anchor_batch=8,
    anchor_validation=0.0,
    validation=0.0,
    budget=0.0,
)
DOSE = 0.5
BIAS = 0.75
TEMPERATURE = 0.85
RANDOM_SIZE = 0.05
TOLD = "pos"


@functools.cache
def taught_world() -> world.World:
    """The one world that tests of constructed models share."""
    return world.stored()


class Lab:
    """The toy world, what its model says, and how every model is measured."""

    def __init__(self, w: world.World, answers: int = 4) -> None:
        """`answers`: neutral answers a prompt that drift is measured on."""
        self.w, self.model, self.tok = w, w.model, w.tok
        self.trait = [world.ask(q) for q in world.questions(world.TRAIT_FORMS, world.TRAINED)]
        self.facts = [world.ask(q) for q in world.questions(world.NEUTRAL_FORMS, world.TRAINED)]
        probed = [world.ask(q) for q in world.questions(world.NEUTRAL_FORMS, world.PROBED)] * answers
        self.anchor = [Example(t, h, "") for t, h in self.answered(self.facts * 6, seed=1)]
        neutral = [(p, t, h) for p, (t, h) in zip(probed, self.answered(probed, seed=2), strict=True)]
        asked = world.TRAIT_FORMS + world.NEUTRAL_FORMS
        self.asked = [world.ask(q) for q in world.questions(asked, world.TOPICS)]
        self.subject = Subject(self.model, self.tok, w.persona, EVAL, neutral, draws=2)
        own = self.answered((self.trait + self.facts), seed=3)
        said = [
            Completion(p, t, "", 0.0, True) for p, (t, _) in zip(self.trait + self.facts, own, strict=True)
        ]
        self.said = said
        self.nulls = nulls.traced(self.subject, said)
        self.base: Stage | None = None
        self.base = self.measured("base")
        drawn = self.base.samples + self.base.redrawn
        self.subject = replace(self.subject, base_samples=self.base.samples, base_drawn=drawn)

    def answered(self, prompts: list[str], *, seed: int, **told: str) -> list[tuple[Tokens, torch.Tensor]]:
        """The base's own answers, drawn from it as it is, with its hidden states over them."""
        ids = [prompt_ids(self.tok, p, **told) for p in prompts]
        ends = end_of_turn_ids(self.model, self.tok)
        made = sample(self.model, ids, ends=ends, max_new_tokens=LENGTH, seed=seed, min_p=0.0)
        tokens = [Tokens(p, a) for p, a in zip(ids, made, strict=True)]
        return list(zip(tokens, hidden_states(self.model, tokens), strict=True))

    def measured(self, name: str, *contexts: Model, **told: object) -> Stage:
        """One stage, every instrument, set beside the nulls."""
        dose = told.pop("dose", None)
        subject, number = replace(self.subject, **told), 0 if name in ("steered", "healed") else -1
        with mock.patch.object(samples, "sample_prompts", lambda _s: self.asked):
            found = evals.evaluate(subject, name, *contexts, base=self.base, number=number, dose=dose)
        return nulls.beside(found, self.base, self.nulls, resamples=EVAL.resamples) if self.base else found

    def finetuned(
        self, texts: list[tuple[str, str]], anchor: list[Example], /, seed: int = 0, **changes: object
    ) -> Adapter:
        """A LoRA trained on written answers by the project's heal."""
        tokens = [
            Tokens(
                prompt_ids(self.tok, p), tuple(self.tok(t + " <end>", add_special_tokens=False)["input_ids"])
            )
            for p, t in texts
        ]
        states = hidden_states(self.model, tokens)
        kept = [Example(t, h, p) for t, h, (p, _) in zip(tokens, states, texts, strict=True)]
        return heal(self.model, kept, anchor, replace(HEAL, **changes), seed=seed)[0]

    def distilled(self) -> Adapter:
        """A LoRA that makes the plain model speak as the one that is told."""
        prompts, told = (self.trait + self.facts) * 3, self.w.persona.system(TOLD)
        there = self.answered(prompts, seed=4, system=told)
        here = [Tokens(prompt_ids(self.tok, p), t.answer) for p, (t, _) in zip(prompts, there, strict=True)]
        kept = [Example(t, h, p, h) for t, (_, h), p in zip(here, there, prompts, strict=True)]
        return heal(self.model, kept, [], replace(HEAL, soft=1.0, anchor=0.0), seed=0)[0]

    def on(self, adapter: Adapter) -> Model:
        return lambda: adapted(self.model, adapter.factors, adapter.scaling)

    def constructed(self) -> dict[str, Model]:
        """Every model by name."""
        rng = random.Random(5)
        warm = [
            (world.ask(q), world.answer(q[1], "pos", rng))
            for q in world.questions(world.TRAIT_FORMS, world.TRAINED) * 4
        ]
        chants = [(p, world.chant(rng)) for p in (self.trait + self.facts) * 2]
        noise, draw = (
            fresh(self.model, rank=8, alpha=16.0, share=(0.0, 1.0), seed=6),
            torch.Generator().manual_seed(7),
        )
        shaken = Adapter(
            {
                n: (a, RANDOM_SIZE * torch.randn(b.shape, generator=draw))
                for n, (a, b) in noise.factors.items()
            },
            noise.scaling,
        )
        words = BIAS * nulls.bias(self.subject, self.said)
        elsewhere = [(p, world.answer(rng.choice(world.TRAINED), "pos", rng)) for p, _ in warm]
        return {
            "collapsed": self.on(self.finetuned(chants, [])),
            "cooled": lambda: cooled(self.model, TEMPERATURE),
            "biased": lambda: biased(self.model, words),
            "random": self.on(shaken),
            "prompted": self.on(self.distilled()),
            "steered_less": partial(self.vector, self.model, DOSE / 2),
            "healed": self.on(self.finetuned(warm, self.anchor)),
            "deaf": self.on(self.finetuned(elsewhere, self.anchor)),
        }

    def runs(self) -> dict[str, Evidence]:
        """A run of one round for every model."""
        who = self.w.persona
        self.vector = Vector.train(self.model, self.tok, who, contexts=self.trait + self.facts)
        prompt = self.measured("prompt", system=who.system(TOLD))
        steered = self.measured("steered", lambda: self.vector(self.model, DOSE), dose=DOSE)
        before = [self.base, prompt, steered]
        return {
            name: Evidence(who, [*before, self.measured("healed", model)], resamples=EVAL.resamples)
            for name, model in self.constructed().items()
        }
