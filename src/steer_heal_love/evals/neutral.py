"""Drift where nothing should change: KL(base‖model) per token on the base's own answers to held-out
neutral prompts, one mean an answer. Identity: 0 for the base itself.
"""

from __future__ import annotations

from steer_heal_love.evals import Subject, instrument
from steer_heal_love.ground.scoring import token_divergence
from steer_heal_love.nouns import Items, Tokens

SEED = 1
"""of the base's answers, the same in every run, so that drift compares between runs"""


@instrument("neutral")
def neutral(s: Subject) -> Items:
    tokens = [Tokens(s.prompt(text), tokens.answer) for text, tokens, _ in s.neutral]
    parts = token_divergence(s.model, tokens, [r for _, _, r in s.neutral], batch_tokens=s.batch_tokens)
    return {"neutral_kl": [p.mean().item() for p in parts]}
