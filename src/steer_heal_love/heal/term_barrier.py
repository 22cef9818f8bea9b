"""The barrier: relu(agg_t D_t − τ), the mean over kept texts; D is the divergence from the reference's model."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from steer_heal_love.config import HealConfig
from steer_heal_love.heal import divergences
from steer_heal_love.heal.examples import Example
from steer_heal_love.heal.loss import hinge
from steer_heal_love.heal.terms import Term, term


def beyond(values: Float[Tensor, " t"], kept: list[Example], config: HealConfig) -> Float[Tensor, ""]:
    lengths = [len(e.tokens.answer) for e in kept]
    return hinge(values, lengths, config.aggregate, config.tau)


term(
    Term(
        "barrier",
        1,
        lambda config: config.lam,
        reference=lambda e: e.reference,
        divergence=lambda config: divergences[config.divergence],
        reduce=beyond,
        share=len,
        curve="barrier (beyond τ)",
    )
)
