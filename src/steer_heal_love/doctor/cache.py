"""Whether decoding with a cache says what the model says without one: every token is the likeliest there, up to rounding."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from steer_heal_love.doctor import Finding, Patient, check
from steer_heal_love.ground import models
from steer_heal_love.ground.decode import sample
from steer_heal_love.nouns import Tokens


@check("cache = no cache", 7)
def cache(p: Patient) -> Finding:
    answers = sample(p.model, p.prompts, ends=p.ends, max_new_tokens=12, seed=0, temperature=0)
    worst = [behind_nats(p, Tokens(prompt, a)) for prompt, a in zip(p.prompts, answers, strict=True)]
    steps = p.kl_nats([step_by_step(p, p.sequences[0])], p.reference[:1])
    return p.same(
        "cache = no cache", f"{sum(map(len, answers))} tokens decoded in a batch and a text read step by step", max(*worst, steps),
        "decoding would say other things than the model: this architecture is not supported",
    )  # fmt: skip


def behind_nats(p: Patient, s: Tokens) -> float:
    """How much less likely a decoded token is than the likeliest, read without a cache, at worst."""
    logits = models.head(p.model, p.alone(s))
    own: Tensor = logits.gather(1, torch.tensor([s.answer], device=logits.device).T).squeeze(1)
    return (logits.amax(1) - own).max().item()


@torch.no_grad()
def step_by_step(p: Patient, s: Tokens) -> Float[Tensor, "t d"]:
    """Final hidden states over the answer, the prompt read at once and then a token at a time from the cache."""
    body, out = models.body(p.model), []
    given, past = list(s.prompt), None
    for token in s.answer:
        ids = torch.tensor([given], device=p.model.device)
        found = body(input_ids=ids, past_key_values=past, use_cache=True)
        out.append(found.last_hidden_state[0, -1])
        past, given = found.past_key_values, [token]
    return torch.stack(out)
