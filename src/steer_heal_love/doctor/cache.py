"""Whether decoding with a cache says what the model says without one: every token is the likeliest there, up to rounding."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from steer_heal_love.doctor import Finding, Patient, check
from steer_heal_love.ground import models, reading
from steer_heal_love.ground.decode import sample
from steer_heal_love.nouns import Tokens


@check("cache = no cache", 7)
def cache(p: Patient) -> Finding:
    answers = sample(p.model, p.prompts, ends=p.ends, max_new_tokens=12, seed=0, temperature=0)
    worst = max(behind_nats(p, Tokens(prompt, a)) for prompt, a in zip(p.prompts, answers, strict=True))
    seen = f"{sum(map(len, answers))} tokens decoded in a batch"
    if cached(p):
        worst = max(worst, p.kl_nats([step_by_step(p, p.sequences[0])], p.reference[:1]))
        seen += " and a text read step by step"
    else:
        seen += ", each row read whole for every token, since this model does not go on from its own cache as it reads"
    return p.same(
        "cache = no cache", seen, worst,
        "decoding would say other things than the model: this architecture is not supported",
    )  # fmt: skip


def cached(p: Patient) -> bool:
    """Whether this model's texts are decoded with a cache here; `reading.way` says."""
    return len(p.sequences[0].prompt) + len(p.sequences[0].answer) <= reading.way(p.model).cached


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
    given, cache, keep = list(s.prompt), None, cached(p)
    for token in s.answer:
        at = len(s.prompt) + len(out) - len(given)
        ids = torch.tensor([given], device=p.model.device)
        places = torch.arange(at, at + len(given), device=p.model.device)[None] if keep else None
        hidden, cache = reading.read(p.model, ids, None, places, cache, use_cache=keep)
        out.append(hidden[0, -1])
        given = [token] if keep else [*given, token]
    return torch.stack(out)
