"""Trait by held-out probes: NLL(neg answer) − NLL(pos answer), nats per token, answers given, not sampled.

Identity: swapping the answers flips the sign.
"""

from __future__ import annotations

from steer_heal_love.evals import Subject, instrument
from steer_heal_love.ground.chat import answer_ids
from steer_heal_love.ground.scoring import branch_nll
from steer_heal_love.nouns import Items


@instrument("probes")
def probes(s: Subject) -> Items:
    chosen = s.probes
    answers = [[answer_ids(s.tok, p.neg), answer_ids(s.tok, p.pos)] for p in chosen]
    nll = branch_nll(s.model, [s.prompt(p.question) for p in chosen], answers, batch_tokens=s.batch_tokens)
    return {"trait": [neg - pos for neg, pos in nll]}
