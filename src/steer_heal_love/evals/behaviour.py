"""Does the model's own unsteered text show the trait, by a readout that shares nothing with the training signal?

A small classifier (`evals.readout`) learns to tell what the pristine base writes when a system prompt tells it to be
the pos pole from what it writes as the neg one, on the persona's training prompts. It then reads every model's own
samples on held-out probe questions: plain words, no likelihood of the base, no vector. An item is a prompt, the mean
over its draws; the draws are those of the instrument `samples`.

    behaviour         calibrated log-odds of the pos pole, nats; `behaviour_shift` is its paired shift from base
    behaviour_masked  the same by a classifier that never saw the words that parroting would use: the poles' content
                      words, and the MASKED words with the largest entries in the unconditional bias vector
    …_auc             out of fold, how often the classifier puts a pos text above a neg one; 0.5 is chance

The bias vector is the mean, over the tokens of the base's own answers to a few training prompts, of log p under the
pos prompt less log p under the neg prompt: what knows the pole's words and nothing of the context.
A readout whose AUC is not surely above 0.5 says nothing: its scores are NaN, n is 0. Intervals are over prompts, for
the one readout that all models of a run share; they don't say what another readout would find.
"""

from __future__ import annotations

import math
import random
from dataclasses import asdict
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steer_heal_love.evals import Subject, drawn_by, instrument
from steer_heal_love.evals.readout import PoleText, fit, stem
from steer_heal_love.ground.chat import answer_ids, prompt_ids
from steer_heal_love.ground.declared import Declared, Panel
from steer_heal_love.ground.decode import sample
from steer_heal_love.ground.models import head
from steer_heal_love.ground.scoring import chunk, hidden_states
from steer_heal_love.ground.text import words
from steer_heal_love.nouns import Items, Json, Persona, Tokens

POLES: tuple[Literal["pos", "neg"], ...] = ("pos", "neg")
MASKED = 100
"""words of the bias vector that the masked readout doesn't see"""
AFTER_OWN_SAMPLES = 1
"""added to the seed of the own samples, so that the poles' texts are other draws"""
OWN = 8
"""training prompts whose unprompted answers the bias vector is read over"""


def training_prompts(persona: Persona, n: int, seed: int) -> list[str]:
    """Up to `n` training prompts: those that draw the trait out, as the probes do, and the plain ones after them."""
    draw = random.Random(seed)
    return [p for kind in (persona.elicit, persona.plain) for p in draw.sample(kind, len(kind))][:n]


def prepare(s: Subject) -> Json:
    """What the readout is fitted on, by the pristine base: both poles' texts, and the words to mask. JSON-ready."""
    prompts = training_prompts(s.persona, s.config.behaviour_prompts, s.seed)
    asked = [prompt_ids(s.tok, p, s.persona.system(pole)) for pole in POLES for p in prompts]
    asked += [prompt_ids(s.tok, p) for p in prompts[:OWN]]
    answers = sample(
        s.model,
        asked,
        ends=s.ends,
        max_new_tokens=s.config.sample_tokens,
        seed=s.seed + AFTER_OWN_SAMPLES,
        temperature=s.config.temperature,
        min_p=s.config.min_p,
        batch=s.batch,
        label="behaviour: poles",
    )
    texts = [s.tok.decode(a, skip_special_tokens=True) for a in answers]
    pole_texts = [
        PoleText(p, pole == "pos", texts[k * len(prompts) + i])
        for k, pole in enumerate(POLES)
        for i, p in enumerate(prompts)
    ]
    bias = bias_vector(s, dict(zip(prompts, answers[len(POLES) * len(prompts) :], strict=False)))
    vocabulary = {w for t in pole_texts for w in words(t.text)}
    masked = sorted(pole_words(s.persona) | biased_words(s, bias, vocabulary))
    return {"texts": [asdict(t) for t in pole_texts], "masked": masked}


def bias_vector(s: Subject, own: dict[str, tuple[int, ...]]) -> Float[Tensor, " v"]:
    """Mean over the tokens of `own`, the base's answers by prompt, of log p told pos − log p told neg, in nats."""

    def mean_log_p(pole: Literal["pos", "neg"]) -> Tensor:
        prompted = [Tokens(prompt_ids(s.tok, p, s.persona.system(pole)), a) for p, a in own.items()]
        states = torch.cat(hidden_states(s.model, prompted, batch_tokens=s.batch_tokens))
        parts = states.to(s.model.device).split(chunk(s.model))
        return torch.stack([head(s.model, h).log_softmax(-1).sum(0) for h in parts]).sum(0) / len(states)

    with torch.no_grad():
        return (mean_log_p("pos") - mean_log_p("neg")).cpu()


def pole_words(persona: Persona) -> set[str]:
    """The content words of both poles."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return set(words(f"{persona.pos} {persona.neg}")) - ENGLISH_STOP_WORDS


def biased_words(s: Subject, bias: Float[Tensor, " v"], vocabulary: set[str], n: int = MASKED) -> set[str]:
    """The `n` of these words with the largest entries in size, less the median; a word's is the mean of its tokens'."""
    entry = {w: bias[list(answer_ids(s.tok, f" {w}"))].mean().item() for w in sorted(vocabulary)}
    middle = sorted(entry.values())[len(entry) // 2] if entry else 0.0
    return set(sorted(entry, key=lambda w: -abs(entry[w] - middle))[:n])


def readouts(s: Subject, _measured: Any) -> Items:
    """Both readouts of this model's draws on the probe questions, and what the readouts are worth."""
    kept = s.prepared.get("behaviour") or prepare(s)
    pole_texts = tuple(PoleText(**t) for t in kept["texts"])
    questions = {p.question for p in s.probes}
    drawn = [m for m in s.drawn if m["prompt"] in questions]
    out: Items = {}
    for name, masked in (("behaviour", []), ("behaviour_masked", kept["masked"])):
        readout = fit(pole_texts, frozenset(map(stem, masked)))
        odds = readout.log_odds([m["text"] for m in drawn])
        by_prompt = dict.fromkeys((m["prompt"] for m in drawn), math.nan)
        for prompt in by_prompt if readout.tells else ():
            mine = [v for m, v in zip(drawn, odds.tolist(), strict=True) if m["prompt"] == prompt]
            known = [v for v in mine if math.isfinite(v)]
            by_prompt[prompt] = sum(known) / len(known) if known else math.nan
        out |= {name: list(by_prompt.values()), f"{name}_auc": readout.auc_items}
    return out


SCORES = (
    Declared(
        "behaviour_shift",
        90,
        items="behaviour",
        shift="rise",
        column=True,
        panel=Panel("Trait, in its own text, by a classifier", "nats"),
    ),
    Declared("behaviour_masked_shift", 91, items="behaviour_masked", shift="rise", column=True),
    Declared("behaviour_auc", 92, interval="auc", column=True),
    Declared("behaviour_masked_auc", 93, interval="auc", column=True),
)


@instrument("behaviour", outside=readouts, ready=drawn_by("behaviour"), prepare=prepare, scores=SCORES)
def behaviour(_subject: Subject) -> None:
    """Nothing is measured inside: what was sampled is read afterwards."""
