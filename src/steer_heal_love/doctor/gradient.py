"""Whether the gradient that heal trains with is the loss's: along it, the loss rises as fast as finite differences say."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from steer_heal_love.doctor import Finding, Patient, check
from steer_heal_love.doctor.update import drawn, gradients
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.ground.scoring import answer_hidden, log_likelihood, pack

STEPS_NATS = {torch.float32: (0.005, 1e-3, 2e-4, 2e-5)}
"""how far the loss is moved to each side: well above rounding, well inside where it is straight"""
COARSE_NATS = (0.05,)
"""the same below fp32"""
AGREES = 0.05
"""difference of the slopes to both sides, as a share of their mean, up to which they are one"""


@check("gradient", 11)
def gradient(p: Patient) -> Finding:
    update = drawn(p)
    leaves = [f.requires_grad_(True) for pair in update.factors.values() for f in pair]
    batch = pack(p.sequences[:1], p.model.device)

    def loss() -> torch.Tensor:
        return -log_likelihood(p.model, answer_hidden(p.model, batch), batch.targets).mean()

    with adapted(p.model, update.factors, update.scaling):
        grads = gradients(loss(), leaves)
        square = sum(g.pow(2).sum().item() for g in grads)
        if not square > 0:
            return Finding("gradient", "no gradient reaches the adapter", "fails", "heal would train nothing")
        ratio = (
            sloped(loss, leaves, grads, [s / square for s in STEPS_NATS.get(p.model.dtype, COARSE_NATS)])
            / square
        )
    fine = abs(ratio - 1) <= (0.05 if p.model.dtype == torch.float32 else 0.3)
    return Finding(
        "gradient",
        f"finite differences are {ratio:.3f} of it",
        "well" if fine else "fails",
        "" if fine else "heal would train along another direction than its loss's",
    )


@torch.no_grad()
def sloped(
    loss: Callable[[], Tensor], leaves: list[Tensor], grads: list[Tensor], steps: list[float]
) -> float:
    """The loss's slope along `grads` by differences over `steps`.

    A step over an edge, where a router takes another expert, jumps to one side alone: of several steps the largest counts
    whose two sides agree, or else the one where they agree best. The smallest steps are near what rounding makes of the
    loss, where two sides can agree by chance.
    """

    def at(by: float) -> float:
        for leaf, g in zip(leaves, grads, strict=True):
            leaf += by * g
        found = loss().item()
        for leaf, g in zip(leaves, grads, strict=True):
            leaf -= by * g
        return found

    here = at(0.0)
    sides = [((at(step) - here) / step, (here - at(-step)) / step) for step in steps]
    apart = lambda side: abs(side[0] - side[1])
    agreed = [side for side in sides if apart(side) <= AGREES * abs(sum(side)) / 2]
    right, left = agreed[0] if agreed else min(sides, key=apart)
    return (right + left) / 2
