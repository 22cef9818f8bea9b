"""The model's own unsteered samples on held-out prompts, read by the base.

own_nll: their NLL under the base (its shift from base is `own_excess`: how odd the base finds them), also apart for
probe questions and neutral prompts. Text that repeats itself or plays safe is likely: read it beside `own_kl`.
trait_generated: log p(sample | pos pole) − log p(sample | neg pole) under the base, per token, of the samples
on probe questions; the neutral prompts are there for own_nll.
repetition, distinct_2: of the text alone. Sampled with one seed for every model, so that they pair.

A subject may draw several samples a prompt: the base, against which every shift is read, and the healed models,
whose own_excess is a claim. An item is a prompt: the mean over its draws, so that luck counts for a part.
trait_generated costs two more readings and is wide apart: it is read from the first draw alone.
"""

from __future__ import annotations

from functools import partial

import torch

from steer_heal_love.evals import Subject, by_kind, first_draws, instrument, sample_prompts
from steer_heal_love.ground.declared import Declared, Panel
from steer_heal_love.ground.decode import sample
from steer_heal_love.ground.scoring import log_likelihood, token_nll
from steer_heal_love.ground.state_cache import from_states
from steer_heal_love.ground.text import distinct, repeated_share, spoken
from steer_heal_love.nouns import Items, Sample


def read_samples(s: Subject, made: list[Sample]) -> Items:
    prompts = list(dict.fromkeys(m["prompt"] for m in made))
    questions = {p.question for p in s.probes}

    def nll(samples: list[Sample], system: str) -> list[float]:
        read = token_nll(s.model, [s.plain(m, system) for m in samples], batch_tokens=s.batch_tokens)
        return [part.mean().item() for part in read]

    def plain_nll(samples: list[Sample]) -> list[float]:
        """The same after the plain prompt, from states that other instruments ask for too: of the first draws. These are read
        by themselves, as they are where only they are asked for, so that a resumed run finds the same to the last digit."""
        s.base_states([s.plain(m) for m in first_draws(samples)])
        plain = [s.plain(m) for m in samples]
        targets = [torch.tensor(t.answer, dtype=torch.long) for t in plain]
        read = from_states(s.model, [s.base_states(plain), targets], partial(log_likelihood, s.model))
        return [-part.mean().item() for part in read]

    def by_prompt(samples: list[Sample], values: list[float]) -> list[float]:
        of = {p: [v for m, v in zip(samples, values, strict=True) if m["prompt"] == p] for p in prompts}
        return [sum(v) / len(v) for v in of.values() if v]

    asked = [m for m in first_draws(made) if m["prompt"] in questions]
    neg, pos = (nll(asked, s.persona.system(pole)) for pole in ("neg", "pos"))
    words = [spoken(m["text"]) for m in made]
    return {
        **by_kind(s, prompts, "own_nll", by_prompt(made, plain_nll(made))),
        "trait_generated": by_prompt(asked, [n - p for n, p in zip(neg, pos, strict=True)]),
        "repetition": by_prompt(made, [repeated_share(w) for w in words]),
        "distinct_2": by_prompt(made, [distinct(w) for w in words]),
    }


SCORES = (
    Declared(
        "trait_generated_shift",
        30,
        items="trait_generated",
        shift="rise",
        column=True,
        means="How much likelier the model's own text is under the pos pole than under the neg, in nats per token, shift from base.",
        panel=Panel("Trait, in its own text", "nats/token"),
    ),
    Declared(
        "own_excess",
        40,
        items="own_nll",
        shift="rise",
        column=True,
        means="NLL under the base of the model's own samples, less the same for the base's own samples, in nats per token. Text that repeats itself or plays safe lowers it: read it beside own_kl.",
        panel=Panel("Oddness of its own text", "nats/token"),
    ),
    Declared(
        "own_excess.probes",
        41,
        items="own_nll.probes",
        shift="rise",
        column=True,
        means="own_excess on probe questions alone.",
    ),
    Declared(
        "own_excess.neutral",
        42,
        items="own_nll.neutral",
        shift="rise",
        column=True,
        means="own_excess on neutral prompts alone.",
    ),
    Declared(
        "repetition",
        60,
        column=True,
        means="Share of the three-word phrases of the model's own samples that occurred before in the same sample.",
        panel=Panel("Repetition", "share of 3-grams"),
    ),
    Declared(
        "repetition_shift",
        61,
        items="repetition",
        shift="rise",
        column=True,
        means="The same less the base's on the same prompts.",
    ),
    Declared(
        "distinct_2",
        62,
        column=True,
        means="Share of different word pairs in the model's own samples.",
        panel=Panel("Distinct 2-grams", "share"),
    ),
    Declared(
        "distinct_2_shift",
        63,
        items="distinct_2",
        shift="rise",
        column=True,
        means="The same less the base's on the same prompts.",
    ),
)


@instrument("samples", outside=read_samples, scores=SCORES)
def samples(s: Subject) -> list[Sample]:
    texts, ends = sample_prompts(s) * s.draws, s.ends
    answers = sample(
        s.model,
        [s.prompt(t) for t in texts],
        ends=ends,
        max_new_tokens=s.config.sample_tokens,
        seed=s.seed,
        temperature=s.config.temperature,
        min_p=s.config.min_p,
        batch=s.batch,
    )
    return [
        {
            "prompt": t,
            "ids": list(a),
            "text": s.tok.decode(a, skip_special_tokens=True),
            "ended": a[-1] in ends,
        }
        for t, a in zip(texts, answers, strict=True)
    ]
