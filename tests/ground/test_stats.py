"""Intervals that hold what they promise; undefined is NaN and not counted."""

from __future__ import annotations

import math

import numpy as np
import pytest

from steer_heal_love.ground.stats import bootstrap, paired


def test_nothing_is_undefined_and_one_item_has_no_interval():
    for empty in ([], [math.nan, math.inf]):
        none = bootstrap(empty, resamples=100)
        assert none.n == 0 and all(map(math.isnan, (none.mean, none.lo, none.hi)))
    one = bootstrap([2.5], resamples=100)
    assert one.n == 1 and one.mean == 2.5 and math.isnan(one.lo) and math.isnan(one.hi)


def test_nan_is_skipped_and_not_counted():
    clean = bootstrap([1.0, 2.0, 4.0], resamples=500)
    assert bootstrap([1.0, math.nan, 2.0, math.inf, 4.0], resamples=500) == clean
    assert clean.n == 3 and clean.mean == pytest.approx(7 / 3)


def test_the_interval_holds_the_mean_and_is_a_function_of_its_seed():
    values = np.random.default_rng(0).normal(size=40).tolist()
    a = bootstrap(values, resamples=500)
    assert a.lo < a.mean < a.hi
    assert a == bootstrap(values, resamples=500, seed=0) != bootstrap(values, resamples=500, seed=1)
    narrow = bootstrap(values, resamples=500, level=0.5)
    assert a.lo < narrow.lo < narrow.hi < a.hi


def test_constant_items_have_a_point_interval():
    s = bootstrap([3.0] * 10, resamples=100)
    assert (s.mean, s.lo, s.hi, s.n) == (3.0, 3.0, 3.0, 10)


@pytest.mark.parametrize("skewed", [False, True])
def test_the_95_percent_interval_covers(skewed):
    draw, hits, runs = np.random.default_rng(1), 0, 300
    for i in range(runs):
        x = draw.exponential(size=48) if skewed else 1 + draw.normal(size=48)
        s = bootstrap(x.tolist(), resamples=600, seed=i)
        hits += s.lo <= 1.0 <= s.hi
    assert 0.90 <= hits / runs <= 0.99


def test_paired_is_the_bootstrap_of_the_differences():
    draw = np.random.default_rng(2)
    base = draw.normal(size=30) * 10
    values = base + 0.5 + draw.normal(size=30) * 0.1
    s = paired(values.tolist(), base.tolist(), resamples=500)
    assert s == bootstrap((values - base).tolist(), resamples=500)
    assert 0.4 < s.lo < 0.5 < s.hi < 0.6
    back = paired(base.tolist(), values.tolist(), resamples=500)
    assert back.mean == pytest.approx(-s.mean)


def test_a_pair_with_a_hole_is_skipped():
    s = paired([1.0, math.nan, 3.0, 4.0], [0.0, 1.0, math.nan, 1.0], resamples=100)
    assert s.n == 2 and s.mean == 2.0


def test_items_that_do_not_pair_up_raise():
    with pytest.raises(ValueError, match="3 against 2"):
        paired([1.0, 2.0, 3.0], [1.0, 2.0], resamples=100)
