"""A condition for steering, read from two kinds of prompts: those to steer and those to leave alone.

    c = mean h(steer) − mean h(leave),   m = the mean of both means,   over every other prompt of each kind

at one layer, and the threshold θ from the prompts in between, which c was not read on: of the values halfway between
neighbouring cosines the one with the highest balanced accuracy there, (share of steer above + share of leave below) / 2; or
the cosine that a given share of steer lies below (`quantile`), or one that is given (`threshold`).
In: a model, its tokenizer, both kinds of texts, a layer. Out: a `Condition` and what it gets right on the held-out prompts;
where they chose θ, that figure is a little too good.

Source: conditional activation steering (CAST), arXiv 2409.05907.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steer_heal_love.ground.chat import prompt_ids
from steer_heal_love.ground.condition import Condition
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.parts import layers
from steer_heal_love.ground.states import states
from steer_heal_love.ground.stats import proportion
from steer_heal_love.ground.untrusted import refuse
from steer_heal_love.nouns import Score

Cut = Literal["balanced", "quantile", "threshold"]
LEAST = 4
"""prompts of each kind: two to read the direction on, two to set the threshold by"""


@dataclass(frozen=True)
class Calibrated:
    """A condition; and of the held-out prompts, the share of the first kind that meet it and the share of the second."""

    condition: Condition
    steered: Score
    left: Score


def conditioned(
    model: PreTrainedModel,
    tok: PreTrainedTokenizerBase,
    steer: list[str],
    leave: list[str],
    *,
    layer: int,
    cut: Cut = "balanced",
    value: float = 0.0,
    below: bool = False,
    batch_tokens: int = 4096,
) -> Calibrated:
    """`cut` and `value` say how the threshold is set; `below`: steer the prompts that are not like the first kind.

    Raises `UserError` for fewer than `LEAST` prompts of either kind, for a `value` out of range, for a layer that the model
    hasn't, and where both kinds have the same mean state."""
    refuse("condition", mistakes(cut, value))
    if min(len(steer), len(leave)) < LEAST:
        raise UserError(
            f"a condition needs at least {LEAST} prompts to steer and as many to leave, found {len(steer)} and {len(leave)}."
        )
    if not 0 <= layer < (depth := len(layers(model))):
        raise UserError(f"a condition at layer {layer}: the model has layers 0 to {depth - 1}.")
    prompts = [[prompt_ids(tok, text) for text in kind] for kind in (steer, leave)]
    ours, theirs = (states(model, kind, [layer], batch_tokens)[layer] for kind in prompts)
    a, b = ours[::2].mean(0), theirs[::2].mean(0)
    if not (a - b).norm() > 0:
        raise UserError("a condition needs two kinds of prompts that differ; these have the same mean state.")
    open_ended = Condition(layer, a - b, (a + b) / 2, -1.0, below)
    of_ours, of_theirs = (open_ended.cosines(model, kind[1::2], batch_tokens) for kind in prompts)
    condition = replace(open_ended, threshold=at(of_ours, of_theirs, cut, value))
    met = lambda cosines: proportion([float(m) for m in condition.meets(cosines)])
    return Calibrated(condition, met(of_ours), met(of_theirs))


def mistakes(cut: str, value: float) -> list[str]:
    """What is wrong with how a threshold is to be set."""
    if cut == "quantile" and not 0 < value < 1:
        return [f"value: a quantile is above 0 and below 1, found {value!r}"]
    if cut == "threshold" and not -1 <= value <= 1:
        return [f"value: a cosine is from -1 to 1, found {value!r}"]
    return []


def at(above: list[float], below: list[float], cut: Cut, value: float) -> float:
    """The threshold: given, or from the cosines of either kind's held-out prompts."""
    if cut == "threshold":
        return value
    if cut == "quantile":
        return torch.tensor(above, dtype=torch.float64).quantile(value).item()
    return threshold(above, below)


def threshold(above: list[float], below: list[float]) -> float:
    """Of the values halfway between neighbours the one of highest balanced accuracy; of equal ones the middle one."""
    values = torch.tensor(sorted({*above, *below, -1.0, 1.0}), dtype=torch.float64)
    middles = (values[1:] + values[:-1]) / 2
    up, down = torch.tensor(above, dtype=torch.float64), torch.tensor(below, dtype=torch.float64)
    right = [((up > t).double().mean() + (down <= t).double().mean()).item() for t in middles]
    best = [t for t, score in zip(middles.tolist(), right, strict=True) if score >= max(right) - 1e-12]
    return float(best[len(best) // 2])
