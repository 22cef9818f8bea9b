"""A blind pairwise judge that is a local model: whose answer sounds more like the pos pole?

Two answers to one held-out probe question, the base's own sample and the sample of the model under test, are
shown as A and B in both orders. With m the log-odds by which the judge picks the model's answer,

    judge_margin    = (m_first + m_second)/2        a taste for A or for B cancels
    judge_share     = ([m_first > 0] + [m_second > 0])/2
    judge_agreement = [m_first > 0] = [m_second > 0] (NaN between equal texts)

Identity: swapping the two models turns share into 1 − share and margin into −margin. What the judge is worth
is read where the answer is known: at the base stage it compares each probe's pos answer with its neg answer
(`judge_known_…`). An agreement near 0 says that it picks by position; then only the margin says anything.
Reads the samples of the instrument `samples`. Source of the swap: arXiv 2306.05685.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steer_heal_love.evals import Subject, drawn_by, instrument
from steer_heal_love.ground import models
from steer_heal_love.ground.chat import answer_ids, prompt_ids
from steer_heal_love.ground.trees import branch_nll
from steer_heal_love.nouns import Items

QUESTION = "Question: {question}\n\nText A: {a}\n\nText B: {b}\n\nWhich text was written by {pole}?"
START = "Text"
Pair = tuple[str, str, str]
"""a question, one answer, the other"""


@lru_cache(maxsize=1)
def loaded(name: str, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    return models.load(name, device=device)


def log_odds(s: Subject, pairs: list[Pair]) -> list[tuple[float, float]]:
    """Nats by which the judge picks the pair's first answer, shown as A and shown as B."""
    name = s.config.judge_model
    model, tok = loaded(name, s.model.device.type) if name else (s.model, s.tok)
    shown = [
        QUESTION.format(question=q, a=a, b=b, pole=s.persona.pos)
        for q, one, other in pairs
        for a, b in ((one, other), (other, one))
    ]
    prompts = [prompt_ids(tok, text) + answer_ids(tok, START) for text in shown]
    letters = [answer_ids(tok, f" {letter}") for letter in "AB"]
    nll = branch_nll(model, prompts, [letters] * len(prompts), batch_tokens=s.batch_tokens)
    return [(b - a, c - d) for (a, b), (c, d) in zip(nll[::2], nll[1::2], strict=True)]


def judged(s: Subject, pairs: list[Pair], name: str = "judge") -> Items:
    """Share, margin and agreement of the first answers of `pairs`, an item a pair."""
    odds = log_odds(s, pairs)
    return {
        f"{name}_share": [((first > 0) + (second > 0)) / 2 for first, second in odds],
        f"{name}_margin": [(first + second) / 2 for first, second in odds],
        f"{name}_agreement": [
            math.nan if one == other else float((first > 0) == (second > 0))
            for (first, second), (_, one, other) in zip(odds, pairs, strict=True)
        ],
    }


def compare(s: Subject, _measured: Any) -> Items:
    if not s.base_samples:
        return judged(s, [(p.question, p.pos, p.neg) for p in s.probes], "judge_known")
    asked = {p.question for p in s.probes}
    return judged(
        s,
        [
            (base["prompt"], own["text"], base["text"])
            for own, base in zip(s.samples, s.base_samples, strict=True)
            if base["prompt"] in asked
        ],
    )


@instrument("judge", outside=compare, ready=drawn_by("judge"), optional=True)
def judge(_subject: Subject) -> None:
    """Nothing is measured inside: the base judges afterwards what was sampled."""
