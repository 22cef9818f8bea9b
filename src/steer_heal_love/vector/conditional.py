"""A condition for steering, read from two kinds of prompts: those to steer and those to leave alone.

    c = mean h(steer) − mean h(leave),   m = the mean of both means,   over every other prompt of each kind

at one layer, and the threshold θ from the prompts in between, which c was not read on: of the values halfway between
neighbouring cosines the one with the highest balanced accuracy there, (share of steer above + share of leave below) / 2.
In: a model, its tokenizer, both kinds of texts, a layer. Out: a `Condition` and what it gets right on the held-out prompts;
that figure chose θ, so it is a little too good.

Source: conditional activation steering (CAST), arXiv 2409.05907.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steer_heal_love.ground.chat import prompt_ids
from steer_heal_love.ground.condition import Condition
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.states import states
from steer_heal_love.ground.stats import proportion
from steer_heal_love.nouns import Score

LEAST = 4
"""prompts of each kind: two to read the direction on, two to set the threshold by"""


@dataclass(frozen=True)
class Calibrated:
    """A condition; and of the held-out prompts, the share to be steered that meet it and the share to be left that do."""

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
    batch_tokens: int = 4096,
) -> Calibrated:
    """Raises `UserError` for fewer than `LEAST` prompts of either kind."""
    if min(len(steer), len(leave)) < LEAST:
        raise UserError(
            f"a condition needs at least {LEAST} prompts to steer and as many to leave, found {len(steer)} and {len(leave)}."
        )
    prompts = [[prompt_ids(tok, text) for text in kind] for kind in (steer, leave)]
    ours, theirs = (states(model, kind, [layer], batch_tokens)[layer] for kind in prompts)
    a, b = ours[::2].mean(0), theirs[::2].mean(0)
    open_ended = Condition(layer, a - b, (a + b) / 2, -1.0)
    above, below = (open_ended.cosines(model, kind[1::2], batch_tokens) for kind in prompts)
    condition = Condition(layer, open_ended.direction, open_ended.mean, threshold(above, below))
    met = lambda cosines: proportion([float(x > condition.threshold) for x in cosines])
    return Calibrated(condition, met(above), met(below))


def threshold(above: list[float], below: list[float]) -> float:
    """Of the values halfway between neighbours the one of highest balanced accuracy; of equal ones the middle one."""
    values = torch.tensor(sorted({*above, *below, -1.0, 1.0}), dtype=torch.float64)
    middles = (values[1:] + values[:-1]) / 2
    up, down = torch.tensor(above, dtype=torch.float64), torch.tensor(below, dtype=torch.float64)
    right = [((up > t).double().mean() + (down <= t).double().mean()).item() for t in middles]
    best = [t for t, score in zip(middles.tolist(), right, strict=True) if score >= max(right) - 1e-12]
    return float(best[len(best) // 2])
