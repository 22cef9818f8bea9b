"""Does the model's own text still answer its prompt? How much the prompt tells the base about the answer.

    relevance_i = mean over draws k and tokens t of  log p(y_t | x_i, y_<t) − log p(y_t | x_j, y_<t)

in nats per token, under the base. y is the model's own sample for prompt x_i, and x_j another prompt of the same kind
(probe question or neutral prompt): for the first draw the next one in the list, for the second the one after it, and so
on, so that what one other prompt happens to share with x_i counts for a part. It estimates the pointwise mutual
information of answer and prompt. Text that would fit any prompt, such as warm words about nothing, reads about 0; text
that takes up its prompt's words and matter reads high. The part that the text's own oddness has in both readings cancels.

It says whether an answer is about its prompt, not whether it is right, and copying the prompt raises it. An item is a
prompt, the mean over its draws; also apart for probe questions and neutral prompts. NaN where there is no other prompt.
Reads the samples of the instrument `samples`, and takes their own reading, `own_nll`, from it. Source of the idea: the
mutual-information objective of arXiv 1510.03055.
"""

from __future__ import annotations

import math
from typing import Any

from steer_heal_love.evals import Subject, by_kind, drawn_by, instrument
from steer_heal_love.ground.declared import Declared
from steer_heal_love.ground.scoring import token_nll
from steer_heal_love.nouns import Items


def others(prompts: list[str], questions: set[str], draw: int = 0) -> list[str | None]:
    """For each prompt another of its kind, the next one for the first draw and so on in a ring; None where it is alone."""
    kinds = {asked: [p for p in prompts if (p in questions) == asked] for asked in (True, False)}
    found: dict[str, str | None] = {}
    for kind in kinds.values():
        step = 1 + draw % max(1, len(kind) - 1)
        found |= {p: kind[(i + step) % len(kind)] if len(kind) > 1 else None for i, p in enumerate(kind)}
    return [found[p] for p in prompts]


def elsewhere(s: Subject, prompts: list[str]) -> list[str | None]:
    """For each of the subject's draws the prompt that it is read after instead of its own."""
    questions, seen = {p.question for p in s.probes}, dict.fromkeys(prompts, 0)
    out = []
    for m in s.drawn:
        other = others(prompts, questions, seen[m["prompt"]])
        out.append(other[prompts.index(m["prompt"])])
        seen[m["prompt"]] += 1
    return out


def read_relevance(s: Subject, _: Any) -> Items:
    prompts = list(dict.fromkeys(m["prompt"] for m in s.drawn))
    pairs = [(m, p) for m, p in zip(s.drawn, elsewhere(s, prompts), strict=True) if p]
    sequences = [s.plain({**m, "prompt": p}) for m, p in pairs]
    found: dict[str, list[float]] = {p: [] for p in prompts}
    for (m, _p), nll in zip(pairs, token_nll(s.model, sequences, batch_tokens=s.batch_tokens), strict=True):
        found[m["prompt"]].append(nll.mean().item())
    means = [sum(v) / len(v) if v else math.nan for v in found.values()]
    return by_kind(s, prompts, "relevance", [b - a for a, b in zip(s.items["own_nll"], means, strict=True)])


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
