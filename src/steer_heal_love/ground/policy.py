"""How a dose adapts while an answer is written, as arithmetic: decay, the cap on divergence, the band that is rewound from.

In: settings, and the NLL or the logits of what was read. Out: a factor, a mixture of logits, whether the band was left. The
loop that acts on it is `ground.adaptive`, whose docstring has the equations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steer_heal_love.ground.condition import Condition
from steer_heal_love.ground.operations import Folding

HALVINGS = 12
"""bisections of the share s; what is left is less than a thousandth of the dose"""


@dataclass(frozen=True)
class Mode:
    """A way to adapt: its setting and what it does, and whether weights can do the same."""

    about: str
    folding: Folding


def _changes(why: str) -> Folding:
    return Folding(exact=False, why=why)


MODES = {
    "decay": Mode(
        "adapt.half_life: the dose halves every so many tokens of an answer",
        _changes("the dose depends on how far the answer has come"),
    ),
    "cap": Mode(
        "adapt.cap_nats: the next token's distribution stays within so many nats of the unsteered one",
        _changes("the dose depends on what the unsteered model says of the same token"),
    ),
    "rewind": Mode(
        "adapt.rewinds: an answer that leaves the base's band of likelihood goes back and is written on with less dose",
        _changes("the dose depends on what was written before and thrown away"),
    ),
    "gate": Mode(
        "adapt.operation gate: less is added where the state already points along the direction",
        _changes("how much is added depends on the state"),
    ),
    "condition": Mode(
        "condition.persona, condition.file: only prompts that meet a condition are steered", Condition.folding
    ),
}
"""every way to adapt, by name"""


@dataclass(frozen=True)
class Policy:
    """How the dose adapts. `half_life`: answer tokens in which it halves. `band`: nats a token that the running NLL under
    the unsteered model keeps to."""

    half_life: float = math.inf
    cap_nats: float = math.inf
    rewinds: int = 0
    shrink: float = 0.5
    window: int = 8
    band: tuple[float, float] = (-math.inf, math.inf)

    @property
    def twin(self) -> bool:
        """Whether every row is read unsteered too."""
        return self.rewinds > 0 or self.cap_nats < math.inf

    @property
    def factor(self) -> float:
        """What a token multiplies the dose by."""
        return 2.0 ** (-1.0 / self.half_life)


def left(nll: Sequence[float], policy: Policy) -> int | None:
    """The first token at which the running NLL is out of the band."""
    low, high = policy.band
    for t, mean in enumerate(running(nll, policy.window), policy.window - 1):
        if not low <= mean <= high:
            return t
    return None


def running(nll: Sequence[float], window: int) -> list[float]:
    """Means of every `window` tokens in a row."""
    return [sum(nll[i : i + window]) / window for i in range(len(nll) - window + 1)]


def band(nll: Sequence[Float[Tensor, " _"]], window: int, quantile: float) -> tuple[float, float]:
    """What the running NLL of the base's own answers keeps to: the `quantile` of each answer's highest mean, and the same
    share from below of its lowest; without bounds where no answer is as long as the window."""
    means = [m for row in nll if (m := running(row.tolist(), window))]
    if not means:
        return -math.inf, math.inf
    ends = [torch.tensor([end(m) for m in means]).double() for end in (min, max)]
    return ends[0].quantile(1 - quantile).item(), ends[1].quantile(quantile).item()


def capped(steered: Float[Tensor, "b v"], plain: Float[Tensor, "b v"], nats: float) -> Float[Tensor, "b v"]:
    """Logits between the two, as far towards the steered ones as KL to the plain ones stays within `nats`."""
    difference, norm = steered - plain, plain.logsumexp(-1, keepdim=True)

    def kl(share: Float[Tensor, "b 1"]) -> Float[Tensor, "b 1"]:
        change = share * difference
        z = (plain + change).logsumexp(-1, keepdim=True)
        return ((plain + change - z).exp() * change).sum(-1, keepdim=True) - (z - norm)

    low, high = torch.zeros_like(norm), torch.ones_like(norm)
    whole = kl(high) <= nats
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        fine = kl(middle) <= nats
        low, high = torch.where(fine, middle, low), torch.where(fine, high, middle)
    # A rounded divergence of nearly nothing may pass under a bound of 0, which allows none.
    share = torch.where(whole, torch.ones_like(low), low) if nats > 0 else torch.zeros_like(low)
    return torch.where(share == 1, steered, plain + share * difference)
