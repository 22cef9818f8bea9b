"""Intervals that hold what they promise; undefined is NaN and not counted."""

from __future__ import annotations

import math

import numpy as np
import pytest

from steer_heal_love.ground.stats import (
    bootstrap,
    corrected,
    counted,
    crossed,
    paired,
    ratio,
    remembered,
    seed_error,
    subtract,
    summed,
    t_quantile,
    unpaired,
    wilson,
)


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
    values = np.random.default_rng(0).exponential(size=40).tolist()
    a = bootstrap(values, resamples=500)
    assert a.lo < a.mean < a.hi
    assert a == bootstrap(values, resamples=500, seed=0) != bootstrap(values, resamples=500, seed=1)
    narrow = bootstrap(values, resamples=500, level=0.5)
    assert a.lo < narrow.lo < narrow.hi < a.hi


def test_constant_items_have_a_point_interval():
    s = bootstrap([3.0] * 10, resamples=100)
    assert (s.mean, s.lo, s.hi, s.n) == (3.0, 3.0, 3.0, 10)


# What items look like here: differences of log-likelihoods, with outliers, divergences, shares that are mostly 0.
ITEMS = {
    "normal": (lambda g, n: 1 + g.normal(size=n), 1.0),
    "outliers": (lambda g, n: 1 + g.standard_t(3, size=n), 1.0),
    "skewed": (lambda g, n: g.exponential(size=n), 1.0),
    "squares": (lambda g, n: g.normal(size=n) ** 2, 1.0),
    "mostly zero": (lambda g, n: (g.random(n) < 0.3) * g.exponential(size=n), 0.3),
    "shares": (lambda g, n: (g.random(n) < 0.3).astype(float), 0.3),
}


def coverage(intervals, truth):
    hits = [s.lo <= truth <= s.hi for s in intervals]
    return sum(hits) / len(hits)


@pytest.mark.parametrize("n", [24, 48])
@pytest.mark.parametrize("kind", sorted(ITEMS))
def test_the_95_percent_interval_covers(kind, n):
    (draw, truth), g = ITEMS[kind], np.random.default_rng(n)
    made = [bootstrap(draw(g, n).tolist(), resamples=400, seed=i) for i in range(500)]
    assert 0.92 <= coverage(made, truth) <= 0.985


@pytest.mark.parametrize("n", [24, 48])
def test_the_paired_interval_covers_and_is_narrower_than_the_unpaired(n):
    g, pairs, apart = np.random.default_rng(n), [], []
    for i in range(400):
        base = 3 * g.normal(size=n)
        values = base + 0.2 + 0.5 * g.normal(size=n)
        pairs.append(paired(values.tolist(), base.tolist(), resamples=400, seed=i))
        apart.append(unpaired(values.tolist(), base.tolist()))
    assert 0.92 <= coverage(pairs, 0.2) <= 0.985
    assert np.mean([s.hi - s.lo for s in pairs]) < 0.5 * np.mean([s.hi - s.lo for s in apart])


def shares(g, n, clear, skewed, share):
    """Items of a part and of the whole that it is the share of; the whole's mean is `clear` standard errors."""
    noise = (lambda: g.exponential(size=n) - 1) if skewed else (lambda: g.normal(size=n))
    whole = 1 + math.sqrt(n) / clear * noise()
    return (share * whole + 0.5 * math.sqrt(n) / clear * noise()).tolist(), whole.tolist()


@pytest.mark.parametrize(
    "n, clear, skewed, share", [(16, 8, False, 0.6), (48, 5, True, 0.6), (48, 5, False, 1.4)]
)
def test_the_interval_of_a_share_covers(n, clear, skewed, share):
    g = np.random.default_rng(n)
    made = [ratio(*shares(g, n, clear, skewed, share), resamples=300, seed=i) for i in range(300)]
    told = [s for s in made if not math.isnan(s.lo)]
    assert len(told) > 280 and 0.92 <= coverage(told, share) <= 0.985
    assert all(s.lo < s.mean < s.hi for s in told)


def test_a_share_pairs_its_items():
    """Known answers: twice the whole is 200% with no doubt, whatever the whole's own spread; shuffled, it is doubtful."""
    g = np.random.default_rng(0)
    whole = 1 + g.normal(size=40)
    exact = ratio((2 * whole).tolist(), whole.tolist(), resamples=200)
    assert (exact.lo, exact.mean, exact.hi) == pytest.approx((2.0, 2.0, 2.0)) and exact.n == 40
    assert ratio((-whole).tolist(), whole.tolist(), resamples=200).mean == pytest.approx(-1.0)
    apart = ratio((2 * g.permutation(whole)).tolist(), whole.tolist(), resamples=200)
    assert apart.mean == pytest.approx(2.0) and apart.hi - apart.lo > 0.5


def test_a_share_of_nothing_clear_has_no_interval():
    g = np.random.default_rng(1)
    lost = ratio(g.normal(size=30).tolist(), (0.01 + g.normal(size=30)).tolist(), resamples=200)
    assert math.isnan(lost.lo) and math.isnan(lost.hi) and lost.n == 30
    assert ratio([], [], resamples=50).n == 0 and math.isnan(ratio([1.0], [2.0], resamples=50).lo)
    assert math.isnan(ratio([1.0, 2.0], [0.0, 0.0], resamples=50).mean)
    skipped = ratio([1.0, math.nan, 3.0, 4.0], [2.0, 2.0, 6.1, 7.9], resamples=50)
    assert skipped.n == 3 and skipped.mean == pytest.approx(0.5)


def grid(g, seeds, n, between, skewed=False):
    """μ = 0 plus what the seed, the item and the two together add."""
    noise = (lambda *s: g.exponential(size=s) - 1) if skewed else (lambda *s: g.normal(size=s))
    return between * g.normal(size=(seeds, 1)) + noise(n) + 0.5 * noise(seeds, n)


@pytest.mark.parametrize("between", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("seeds, n, skewed", [(3, 24, False), (3, 48, True), (5, 24, True), (5, 48, False)])
def test_items_crossed_with_seeds_cover(seeds, n, skewed, between):
    g = np.random.default_rng(seeds * n)
    made = [crossed(grid(g, seeds, n, between, skewed).tolist(), resamples=300, seed=i) for i in range(400)]
    assert 0.92 <= coverage(made, 0.0) <= 0.99


def test_items_alone_promise_too_much_where_seeds_differ():
    g = np.random.default_rng(6)
    made = [bootstrap(grid(g, 3, 48, 0.3).mean(0).tolist(), resamples=300, seed=i) for i in range(300)]
    assert coverage(made, 0.0) < 0.85


@pytest.mark.parametrize("comparisons", [2, 7])
def test_several_looks_hold_together(comparisons):
    g, plain, shared = np.random.default_rng(comparisons), 0, 0
    for i in range(300):
        sets = g.normal(size=(comparisons, 48)).tolist()
        plain += all(s.lo <= 0 <= s.hi for x in sets for s in [bootstrap(x, resamples=400, seed=i)])
        shared += all(
            s.lo <= 0 <= s.hi
            for x in sets
            for s in [bootstrap(x, resamples=1000, seed=i, comparisons=comparisons)]
        )
    assert shared / 300 >= 0.93
    assert plain < shared


def test_the_unpaired_interval_covers_with_unequal_sides():
    g = np.random.default_rng(3)
    made = [unpaired((1 + 3 * g.normal(size=16)).tolist(), g.normal(size=32).tolist()) for _ in range(500)]
    assert 0.92 <= coverage(made, 1.0) <= 0.985


@pytest.mark.parametrize("n, share", [(12, 0.5), (48, 0.1), (48, 0.9)])
def test_wilson_covers(n, share):
    draws = np.random.default_rng(n).binomial(n, share, size=2000) / n
    hits = [low <= share <= high for low, high in (wilson(d, n) for d in draws)]
    assert 0.92 <= np.mean(hits) <= 0.99
    assert wilson(0.0, n)[0] == 0.0 and wilson(1.0, n)[1] == 1.0


@pytest.mark.parametrize(
    "df, known", [(1, 12.7062), (2, 4.3027), (5, 2.5706), (23, 2.0687), (100, 1.9840), (5000, 1.9604)]
)
def test_students_t_is_the_table(df, known):
    assert t_quantile(0.975, df) == pytest.approx(known, rel=1e-3)
    assert t_quantile(0.025, df) == pytest.approx(-known, rel=1e-3)


def test_looks_share_one_error():
    assert corrected(0.95, 1) == corrected(0.95, 0) == 0.95
    assert corrected(0.95, 5) == pytest.approx(0.99)


def test_one_seed_is_the_bootstrap_and_seeds_only_widen():
    g = np.random.default_rng(4)
    x = grid(g, 3, 30, 0.5)
    assert crossed(x[:1].tolist(), resamples=200) == bootstrap(x[0].tolist(), resamples=200)
    both, items = crossed(x.tolist(), resamples=200), bootstrap(x.mean(0).tolist(), resamples=200)
    assert both.lo < items.lo < items.hi < both.hi and both.mean == items.mean == pytest.approx(x.mean())
    same = np.repeat(x[:1], 3, axis=0)
    assert seed_error(same) == 0 and crossed(same.tolist(), resamples=200) == bootstrap(
        same.mean(0).tolist(), resamples=200
    )


def test_an_item_that_one_seed_does_not_define_is_skipped():
    s = crossed([[1.0, math.nan, 3.0, 2.0], [1.0, 2.0, 3.0, 5.0]], resamples=100)
    assert s.n == 3 and s.mean == pytest.approx(2.5)
    assert crossed([[math.nan], [1.0]], resamples=100).n == 0
    with pytest.raises(ValueError, match="crossed items"):
        crossed([[1.0], [1.0, 2.0]], resamples=100)


def test_unpaired_of_too_little_has_no_interval():
    assert unpaired([], [1.0]).n == 0
    one = unpaired([3.0], [1.0, 2.0])
    assert one.mean == 1.5 and math.isnan(one.lo) and one.n == 3
    assert unpaired([2.0, 2.0], [1.0, 1.0]) == unpaired([2.0, math.nan, 2.0], [1.0, 1.0])


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
    for pair in (subtract, lambda a, b: paired(a, b, resamples=100)):
        with pytest.raises(ValueError, match="3 against 2"):
            pair([1.0, 2.0, 3.0], [1.0, 2.0])


def test_items_of_0_and_1_get_wilsons_interval_and_their_differences_never_do():
    right = [1.0] * 30 + [0.0] * 18
    assert (counted(right, resamples=100).lo, counted(right, resamples=100).hi) == wilson(30 / 48, 48)
    gained = [0.0] * 47 + [1.0]
    assert counted(gained, resamples=500).lo > 0, "a share of one in 48 is above none"
    one_more = paired(gained, [0.0] * 48, resamples=500)
    one_less = paired([0.0] * 48, gained, resamples=500)
    assert one_more.lo < 0 < one_more.hi and (one_less.lo, one_less.hi) == (-one_more.hi, -one_more.lo)


def test_a_share_of_all_or_none_has_an_interval_where_it_is_said_to_be_one():
    assert (counted([1.0] * 9, resamples=50, share=True).lo, counted([1.0] * 9, resamples=50).lo) == (
        wilson(1.0, 9)[0],
        1.0,
    )
    assert counted([0.5] * 9, resamples=50, share=True).lo == 0.5, "values that are none of the two"


def test_a_sum_with_a_part_of_one_item_has_no_interval():
    rng = np.random.default_rng(0)
    many, one = rng.normal(size=(3, 9)), rng.normal(size=(3, 1))
    for tables in ([many, one], [one, many]):
        s = summed(tables, resamples=50)
        assert math.isfinite(s.mean) and math.isnan(s.lo) and math.isnan(s.hi)
    assert math.isfinite(summed([many, many], resamples=50).lo)


def test_resamples_of_one_size_are_shared_and_nobody_can_change_them():
    first = remembered(7, 20, 0)
    assert remembered(7, 20, 0) is first and first.shape == (20, 7)
    assert not np.array_equal(remembered(7, 20, 1), first)
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 0
    values = [0.1, 0.5, -0.3, 0.9, 0.2, 0.0, 0.4]
    assert bootstrap(values, resamples=20) == bootstrap(values, resamples=20)
