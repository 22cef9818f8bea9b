"""Coherence that repeating oneself doesn't buy: how far the model is from the base along its own text.

    own_kl = mean_t KL(model‖base)(· | y_<t),   own_entropy = mean_t H(model)(· | y_<t),   y the model's own samples

in nats per token, from whole next-token distributions at every position, not from the tokens that were drawn: own_kl is
never negative, and a model that goes in circles which the base doesn't expect pays for every turn. `own_excess`, which
reads the drawn tokens alone, falls when a model gets surer or repeats itself. own_entropy's shift from base says how
much surer it got.

The model reads its samples after the prompt that drew them, the base after the plain one (as own_nll does). One draw a
prompt, an item a prompt; also apart for probe questions and neutral prompts. Identity: 0 for the base itself.
Reads the samples of the instrument `samples`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steer_heal_love.evals import OWN, Subject, by_kind, drawn_by, first_draws, instrument
from steer_heal_love.ground.declared import Declared, Panel
from steer_heal_love.ground.divergence import entropy, forward_kl
from steer_heal_love.ground.models import Voice, narrow_head, voice
from steer_heal_love.ground.state_cache import Hidden, from_states
from steer_heal_love.nouns import Items


@dataclass(frozen=True)
class Said:
    """The model's final hidden states over its own samples, and its output layer as it was then."""

    states: Hidden
    speak: Voice


def kl_and_entropy(model: Float[Tensor, "t v"], base: Float[Tensor, "t v"]) -> Float[Tensor, "t 2"]:
    """KL(model‖base) and the model's entropy per token, from logits."""
    return torch.stack([forward_kl(model, base), entropy(model)], -1)


def read_own(s: Subject, said: Said) -> Items:
    made = s.samples
    prompts = [m["prompt"] for m in made]
    plain = [s.plain(m) for m in made]
    ours = lambda own, base: kl_and_entropy(said.speak(own), narrow_head(s.model, base))
    rows = from_states(s.model, [said.states, s.base_states(plain)], ours)
    kl, spread = zip(*(r.mean(0).tolist() for r in rows), strict=True) if rows else ((), ())
    return by_kind(s, prompts, "own_kl", list(kl)) | {"own_entropy": list(spread)}


SCORES = (
    Declared(
        "own_kl",
        45,
        column=True,
        means="KL(model‖base) per token along the model's own samples, from whole next-token distributions. It is never negative.",
        panel=Panel("KL from base, its own text", "nats/token"),
    ),
    Declared(
        "own_entropy_shift",
        46,
        items="own_entropy",
        shift="rise",
        column=True,
        means="Entropy of the model's next-token distribution along its own samples, shift from base, in nats. Below zero the model has become surer.",
    ),
)


@instrument("own_kl", outside=read_own, ready=drawn_by("own_kl"), scores=SCORES)
def own_kl(s: Subject) -> Said:
    sequences = [s.told(m) for m in first_draws(s.drawn)]
    return Said(s.states(OWN, sequences), voice(s.model))
