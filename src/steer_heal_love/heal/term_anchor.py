"""The anchor: KL(base^(1/T)‖student) per token on the base's own answers to neutral prompts, T = heal.anchor_temperature."""

from __future__ import annotations

from functools import partial

from jaxtyping import Float
from torch import Tensor

from steer_heal_love.ground.divergence import forward_kl
from steer_heal_love.ground.vocabulary import widened
from steer_heal_love.heal.terms import Term, always, term


def cooled(
    temperature: float, base: Float[Tensor, "t v"], student: Float[Tensor, "t v"]
) -> Float[Tensor, " t"]:
    return forward_kl(widened(base) / temperature, student)


term(
    Term(
        "anchor",
        3,
        lambda config: config.anchor,
        on="anchor",
        reference=lambda e: e.reference,
        divergence=lambda config: partial(cooled, config.anchor_temperature),
        narrow=True,
        needed=always,
        curve="anchor KL",
    )
)
