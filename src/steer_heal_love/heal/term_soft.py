"""Imitation by soft targets: KL(teacher‖student) over the whole vocabulary, on the kept text."""

from __future__ import annotations

from steer_heal_love.ground.divergence import forward_kl
from steer_heal_love.heal.terms import Term, term

term(
    Term(
        "soft",
        2,
        lambda config: config.soft,
        reference=lambda e: e.teacher,
        divergence=lambda _config: forward_kl,
        narrow=True,
        imitates=True,
    )
)
