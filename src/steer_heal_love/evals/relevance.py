"""Does the model's own text still answer its prompt? How much the prompt tells the base about the answer.

    relevance_i = mean over t of  log p(y_t | x_i, y_<t) − log p(y_t | x_j, y_<t)     nats per token, under the base

y is the model's own sample for prompt x_i, and x_j another prompt of the same kind (probe question or neutral prompt):
the next one in the list. It estimates the pointwise mutual information of answer and prompt. Text that would fit any
prompt, such as warm words about nothing, reads about 0; text that takes up its prompt's words and matter reads high. The
part that the text's own oddness has in both readings cancels.

It says whether an answer is about its prompt, not whether it is right, and copying the prompt raises it. The first draw
of each prompt, an item a prompt; also apart for probe questions and neutral prompts. NaN where there is no other prompt.
Reads the samples of the instrument `samples`. Source of the idea: the mutual-information objective of arXiv 1510.03055.
"""

from __future__ import annotations

import math
from typing import Any

from steer_heal_love.evals import Subject, by_kind, drawn_by, instrument
from steer_heal_love.ground.chat import prompt_ids
from steer_heal_love.ground.declared import Declared
from steer_heal_love.ground.scoring import token_nll
from steer_heal_love.nouns import Items, Tokens


def others(prompts: list[str], questions: set[str]) -> list[str | None]:
    """For each prompt the next one of its kind, the first after the last; None where it is the only one."""
    kinds = {asked: [p for p in prompts if (p in questions) == asked] for asked in (True, False)}
    following = {p: kind[(i + 1) % len(kind)] for kind in kinds.values() for i, p in enumerate(kind)}
    return [following[p] if following[p] != p else None for p in prompts]


def read_relevance(s: Subject, _: Any) -> Items:
    prompts = [m["prompt"] for m in s.samples]
    elsewhere = others(prompts, {p.question for p in s.probes})

    def nll(after: list[str | None]) -> list[float]:
        read = [
            Tokens(prompt_ids(s.tok, p), tuple(m["ids"])) for p, m in zip(after, s.samples, strict=True) if p
        ]
        found = iter(token_nll(s.model, read, batch_tokens=s.batch_tokens))
        return [next(found).mean().item() if p else math.nan for p in after]

    own, other = nll(list(prompts)), nll(elsewhere)
    return by_kind(s, prompts, "relevance", [b - a for a, b in zip(own, other, strict=True)])


SCORES = (
    Declared(
        "relevance",
        95,
        column=True,
        means="How many nats per token the prompt tells the base about the model's own answer, against another prompt of the same kind. Text that would fit any prompt is near 0.",
    ),
    Declared(
        "relevance_shift",
        96,
        items="relevance",
        shift="rise",
        column=True,
        means="The same less the base's on the same prompts. Below zero the model answers its prompts less.",
    ),
    Declared("relevance_shift.probes", 97, items="relevance.probes", shift="rise"),
    Declared("relevance_shift.neutral", 98, items="relevance.neutral", shift="rise"),
)


@instrument("relevance", outside=read_relevance, ready=drawn_by("relevance"), scores=SCORES)
def relevance(_: Subject) -> None:
    """Nothing is read while the model under test is there: its samples are read by the base."""
