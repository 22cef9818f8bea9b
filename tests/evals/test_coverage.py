"""The new scores' intervals hold the truth as often as they claim, by simulation; `text_auc` has its own test."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from steer_heal_love import evals
from steer_heal_love.ground.declared import declared
from steer_heal_love.ground.halves import halves

RUNS, RESAMPLES = 200, 200
LEAST = binom.ppf(0.001, RUNS, 0.95)
"""what 95% intervals hold at least, to chance"""


def scored(name: str, items: list[float]) -> evals.Score:
    return evals.scores({name: items}, {}, resamples=RESAMPLES)[name]


@pytest.mark.parametrize(
    ("name", "n", "shape"), [("own_kl", 24, 2.0), ("neutral_kl.code", 24, 2.0), ("own_entropy", 24, 4.0)]
)
def test_means_of_skewed_items(name: str, n: int, shape: float) -> None:
    draw = np.random.default_rng(1)
    found = [scored(name, draw.gamma(shape, 1 / shape, n).tolist()) for _ in range(RUNS)]
    assert sum(s.lo <= 1.0 <= s.hi for s in found) >= LEAST


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_share_of_choices_where_some_probes_have_none(share: float) -> None:
    draw = np.random.default_rng(2)
    found = []
    for _ in range(RUNS):
        items = (draw.random(48) < share).astype(float)
        items[::3] = math.nan
        found.append(scored("choice_pos", items.tolist()))
    assert {s.n for s in found} == {32}
    assert sum(s.lo <= share <= s.hi for s in found) >= LEAST


@pytest.mark.parametrize(
    "name", ["trait_pos", "trait_neg", "trait_over_neutral", "repetition_shift", "own_excess.neutral"]
)
def test_shifts_are_paired_and_signed(name: str) -> None:
    """Items differ far more between probes than the shift does, and the sign is the score's own."""
    draw, source = np.random.default_rng(3), declared[name].source
    sign = -1 if name == "trait_pos" else 1
    held = 0
    for _ in range(RUNS):
        base = draw.normal(3, 2, 24)
        moved = base + sign * (0.2 + 0.1 * (draw.exponential(1, 24) - 1))
        pair = ({source: side.tolist()} for side in (moved, base))
        s = evals.scores(*pair, resamples=RESAMPLES)[name]
        held += s.lo <= 0.2 <= s.hi
        assert s.hi - s.lo < 0.5
    assert held >= LEAST


def test_both_halves_hold_together() -> None:
    draw, held = np.random.default_rng(4), 0
    for _ in range(RUNS):
        b = {n: draw.normal(3, 1, 24) for n in ("nll_pos", "nll_neg")}
        a = {
            "nll_pos": b["nll_pos"] - 0.1 - draw.normal(0, 0.2, 24),
            "nll_neg": b["nll_neg"] + draw.normal(0, 0.2, 24),
        }
        sides = [
            {n: v.tolist() for n, v in (m | {"trait": m["nll_neg"] - m["nll_pos"]}).items()} for m in (a, b)
        ]
        found = halves(*sides, resamples=RESAMPLES)
        held += found.pos.lo <= 0.1 <= found.pos.hi and found.neg.lo <= 0.0 <= found.neg.hi
    assert held >= LEAST
