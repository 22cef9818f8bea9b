"""What a loss term is: what it is read on, what it compares, its weight, its share of a step, its curve.

A term is one file here that registers a `Term`. Terms are read per token in one pass over the vocabulary
(`heal.loss.token_terms`), reduced to one number, weighted and summed. A step's text is read in parts; a term's value over
the step is the mean of its parts' values by `share`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from steer_heal_love.config import HealConfig
from steer_heal_love.ground.declared import Curve, curves
from steer_heal_love.ground.registry import Registry
from steer_heal_love.heal import Divergence, widening
from steer_heal_love.heal.examples import Example, tokens

Values = Float[Tensor, " t"]
Comparison = tuple[Callable[[Example], Tensor | None], Divergence]
Reduce = Callable[[Values, list[Example], HealConfig], Float[Tensor, ""]]


def mean(values: Values, _examples: list[Example], _config: HealConfig) -> Float[Tensor, ""]:
    """Over tokens."""
    return values.mean()


def always(_config: HealConfig) -> bool:
    return True


@dataclass(frozen=True)
class Term:
    """One term of the heal loss.

    `reference`: an example's final hidden states [t d] that the student's are compared with by `divergence`, in nats per
    token; without both, the term is the NLL of the tokens. `weight` is its factor in the loss.
    """

    name: str
    place: int
    weight: Callable[[HealConfig], float]
    on: Literal["kept", "anchor"] = "kept"
    reference: Callable[[Example], Tensor | None] | None = None
    divergence: Callable[[HealConfig], Divergence] | None = None
    narrow: bool = False
    """whether its divergence takes logits in the output layer's type, and widens each by itself; else it is given fp32"""
    reduce: Reduce = mean
    share: Callable[[list[Example]], int] = tokens
    """how much a part of a step counts: by its tokens, or by its texts"""
    needed: Callable[[HealConfig], bool] | None = None
    """whether it is computed at all; where its weight isn't 0 if not said"""
    imitates: bool = False
    """whether it draws the student to the text, rather than holding it to the base"""
    curve: str = ""
    """its label among the heal's curves; empty where it isn't drawn"""

    def active(self, config: HealConfig) -> bool:
        return self.needed(config) if self.needed else self.weight(config) != 0

    def comparison(self, config: HealConfig) -> Comparison | None:
        """Whose states it compares the student's with, and by what, of logits in any type; None for a term of the tokens alone."""
        if not (self.reference and self.divergence):
            return None
        apart = self.divergence(config)
        return self.reference, apart if self.narrow else widening(apart)


terms: Registry[Term] = Registry("loss term", "steer_heal_love.heal")


def term(made: Term) -> Term:
    """Register a loss term, and its curve for the report."""
    if made.curve:
        curves.register(made.name, Curve(made.name, made.curve, made.place))
    return terms.register(made.name, made)


def in_order() -> list[Term]:
    return sorted(terms.values(), key=lambda t: t.place)
