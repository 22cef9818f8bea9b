"""The shape checks of the test run: they refuse what doesn't fit, in functions that are made anew too."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import jaxtyping
import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from shape_checks import checked
from steer_heal_love.ground.stats import noise

shaped = jaxtyping.jaxtyped(typechecker=checked)


def adder(amount: float) -> Callable[..., Tensor]:
    @shaped
    def add(a: Float[Tensor, "n m"], b: Float[Tensor, " m"], deep: int = 0) -> Float[Tensor, "n m"]:
        if deep:
            return adder(amount + 1)(a, b, deep=deep - 1) + amount
        return (a + b + amount) if amount < 9 else (a + b).flatten()

    return add


@shaped
@dataclass
class Pair:
    left: Float[Tensor, " n"]
    right: Float[Tensor, " n"]


def test_every_function_of_one_source_is_checked_and_keeps_its_own_variables():
    a, b = torch.zeros(2, 3), torch.zeros(3)
    first, second = adder(1.0), adder(2.0)
    for _ in range(2):
        assert first(a, b).unique().tolist() == [1.0] and second(a, b).unique().tolist() == [2.0]
        for add in (first, second):
            with pytest.raises(jaxtyping.TypeCheckError):
                add(a, torch.zeros(4))
            with pytest.raises(jaxtyping.TypeCheckError):
                add(a.long(), b)
    assert first(a, b, deep=2).unique().tolist() == [6.0], "1 + 2 + 3, each call its own amount"
    with pytest.raises(jaxtyping.TypeCheckError, match="return value"):
        adder(9.0)(a, b)


def test_a_dataclass_is_checked():
    assert Pair(torch.zeros(2), torch.zeros(2)).left.shape == (2,)
    with pytest.raises(jaxtyping.TypeCheckError):
        Pair(torch.zeros(2), torch.zeros(3))


def test_the_package_is_checked():
    with pytest.raises(jaxtyping.TypeCheckError):
        noise(np.zeros(3))


def test_what_a_function_closes_over_is_let_go():
    class Held(float):
        pass

    held = Held(1.0)
    gone, add = weakref.ref(held), adder(held)
    assert add(torch.zeros(1, 1), torch.zeros(1)).item() == 1.0
    del held, add
    gc.collect()
    assert gone() is None
