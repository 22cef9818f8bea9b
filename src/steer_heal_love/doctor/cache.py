"""Whether decoding with a cache says what the model says without one: every token is the likeliest there, up to rounding."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from steer_heal_love.doctor import Finding, Patient, check
from steer_heal_love.ground import models, reading
from steer_heal_love.ground.decode import sample
from steer_heal_love.nouns import Tokens

MORE = 12
"""tokens decoded of each prompt"""


@check("cache = no cache", 7)
def cache(p: Patient) -> Finding:
    prompts = [p.prompts[i] for i in steady(p)]
    answers = sample(p.model, prompts, ends=p.ends, max_new_tokens=MORE, seed=0, temperature=0)
    worst = max(behind_nats(p, Tokens(prompt, a)) for prompt, a in zip(prompts, answers, strict=True))
    seen, i = f"{sum(map(len, answers))} tokens decoded in a batch", steady(p)[0]
    if goes_on := cached(p, p.sequences[i]):
        worst = max(worst, p.kl_nats([step_by_step(p, p.sequences[i])], [p.reference[i]]))
        seen += " and a text read step by step"
    else:
        seen += f"; {models.UNCACHED}"
    found = p.same(
        "cache = no cache",
        seen,
        worst,
        "decoding would say other things than the model: this architecture is not supported",
    )
    if found.verdict == "well" and not goes_on:
        found = replace(found, verdict="note", do="nothing, if you can wait")
    return found if found.verdict == "fails" or len(prompts) == len(p.prompts) else moving(p, found)


def moving(p: Patient, found: Finding) -> Finding:
    """The finding with what is to be known of a model whose positions change with a text's length."""
    at = reading.limits(p.model)[1]
    return Finding(
        found.check,
        f"{found.seen}; a text that grows past {at} tokens is read otherwise than it was written, as by the library",
        "note",
        f"keep prompts and answers together below {at} tokens",
    )


def steady(p: Patient) -> list[int]:
    """The prompts whose answers don't cross the length from which a model reads a whole text otherwise; all if none."""
    at = reading.limits(p.model)[1]
    longest = [len(s.prompt) + max(MORE, len(s.answer)) for s in p.sequences]
    fine = [i for i, s in enumerate(p.sequences) if longest[i] <= at or len(s.prompt) > at]
    return fine or list(range(len(p.sequences)))


def cached(p: Patient, s: Tokens) -> bool:
    """Whether this text is decoded with a cache here; `reading.way` says."""
    return len(s.prompt) + len(s.answer) <= reading.way(p.model).cached


def behind_nats(p: Patient, s: Tokens) -> float:
    """How much less likely a decoded token is than the likeliest, read without a cache, at worst."""
    logits = models.head(p.model, p.alone(s))
    own: Tensor = logits.gather(1, torch.tensor([s.answer], device=logits.device).T).squeeze(1)
    return (logits.amax(1) - own).max().item()


@torch.no_grad()
def step_by_step(p: Patient, s: Tokens) -> Float[Tensor, "t d"]:
    """Final hidden states over the answer, the prompt read at once and then a token at a time from the cache; where
    this model's texts are decoded without one, the whole text again for each token."""
    out: list[Tensor] = []
    given, cache, keep = list(s.prompt), None, cached(p, s)
    for token in s.answer:
        at = len(s.prompt) + len(out) - len(given)
        ids = torch.tensor([given], device=p.model.device)
        places = torch.arange(at, at + len(given), device=p.model.device)[None] if keep else None
        hidden, cache = reading.forward(p.model, ids, None, places, cache, use_cache=keep)
        out.append(hidden[0, -1])
        given = [token] if keep else [*given, token]
    return torch.stack(out)
