"""Null: one unconditional bias on the logits, z ← z + strength·b, at every position of every text.

b is the mean difference of the logits of the base told to be the pos pole and the base told to be the neg pole, over
the base's own answers to training prompts (`evals.nulls.bias`): a bag of words that knows no context.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cache, partial

from torch import Tensor

from steer_heal_love import steps
from steer_heal_love.compare.bench import Bench
from steer_heal_love.compare.method import Cell, method
from steer_heal_love.evals import nulls
from steer_heal_love.ground.hooks import biased


@method("null_bias", knob="multiple of the prompted models' mean logit difference", kind="steered", null=True)
def null_bias(bench: Bench) -> Iterator[Cell]:
    r = bench.run
    whole = cache(lambda: nulls.bias(steps.subject(r), r.base.calibration))
    for multiple in bench.grid.biases:
        yield Cell(multiple, (partial(with_bias, bench, whole, multiple),), own=multiple == 1)


def with_bias(bench: Bench, whole: Callable[[], Tensor], multiple: float) -> AbstractContextManager[None]:
    return biased(bench.run.model, multiple * whole())
