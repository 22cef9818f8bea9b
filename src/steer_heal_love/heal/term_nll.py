"""Imitation by hard targets: NLL of the kept tokens, each text's by its weight. Always read, so that it is on record."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from steer_heal_love.config import HealConfig
from steer_heal_love.heal.examples import Example
from steer_heal_love.heal.terms import Term, always, term


def weighted(nll: Float[Tensor, " t"], kept: list[Example], _config: HealConfig) -> Float[Tensor, ""]:
    """The mean over tokens, each times its example's weight."""
    weights = [nll.new_full((len(e.tokens.answer),), e.weight) for e in kept]
    return (nll * torch.cat(weights)).mean()


term(Term("nll", 0, lambda config: 1 - config.soft, reduce=weighted, needed=always, imitates=True))
