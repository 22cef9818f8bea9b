"""Distil the survivors into a LoRA that is trained to stay coherent.

In: kept completions, the anchor (the base's own neutral answers), cached reference states. Out: an
`Adapter` and the record of its training. The teacher is the student with its logits moved as steering moves
them (`heal.teacher`). The loss, per step:

    (1−β)·NLL(kept) + β·KL(teacher‖student)_kept + λ · mean_c relu(agg_t D_ct − τ)
      + λ_a · mean_t KL(base^(1/T)‖student)_anchor + λ_s · mean_m σ₁(ΔW_m)²

Invariant: only the factors get gradients, and both passes see the weights as folded. A divergence is one
file here with `@divergences(name)`: logits of (reference, student) → nats per token. A loss term is one file here that
registers a `Term`: its weight, its share of a step and its curve stand in it.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from steer_heal_love.ground.registry import Registry
from steer_heal_love.ground.vocabulary import widened

Divergence = Callable[[Tensor, Tensor], Tensor]
divergences: Registry[Divergence] = Registry("divergence", __name__)


def widening(divergence: Divergence) -> Divergence:
    """The same, of logits in fp32 at least, whatever type they come in."""
    return lambda reference, student: divergence(widened(reference), widened(student))
