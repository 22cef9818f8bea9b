"""Constructed frontiers with known crossings; undefined is NaN and counted; intervals that hold what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from steer_heal_love.compare.frontier import Frontier, at_budget, cross, means

HOW = {"resamples": 400}


def flat(kl, score, items=6):
    """A frontier whose items are all alike."""
    return Frontier(*(np.repeat(np.array(v, dtype=float)[:, None], items, 1) for v in (kl, score)))


def test_at_a_cells_own_cost_it_has_that_cells_score():
    f = flat([0.01, 0.04, 0.09], [0.3, 0.5, 0.6])
    for kl, score in zip((0.01, 0.04, 0.09), (0.3, 0.5, 0.6), strict=True):
        found = at_budget([f], kl, **HOW)
        assert found.score.mean == pytest.approx(score)
        assert (found.score.lo, found.score.hi) == pytest.approx((score, score))
        assert (found.reached, found.seeds, found.score.n) == (1, 1, 6)


def test_a_trait_that_grows_with_the_root_of_the_cost_is_found_exactly_between_cells():
    kl = np.array([0.01, 0.04, 0.25])
    f = flat(kl, 2.0 * np.sqrt(kl))
    for budget in (0.001, 0.02, 0.05, 0.2):
        assert at_budget([f], budget, **HOW).score.mean == pytest.approx(2 * math.sqrt(budget))


def test_below_the_first_cell_the_frontier_starts_at_the_base():
    assert cross(np.array([[0.16]]), np.array([[0.8]]), 0.04)[0] == pytest.approx(0.4)


def test_the_first_crossing_counts_and_a_frontier_may_turn_back():
    kl, score = np.array([[0.01, 0.09, 0.01, 0.16]]), np.array([[0.1, 0.3, 0.9, 1.0]])
    assert cross(kl, score, 0.04)[0] == pytest.approx(0.2)


def test_a_negative_cost_is_none():
    assert cross(np.array([[-1e-7, 0.04]]), np.array([[0.1, 0.3]]), 0.01)[0] == pytest.approx(0.2)


def test_what_never_gets_there_is_undefined_and_counted():
    low, high, none = flat([0.01], [0.2]), flat([0.04], [0.4]), Frontier(np.empty((0, 1)), np.empty((0, 1)))
    found = at_budget([low, none], 0.02, **HOW)
    assert (found.reached, found.seeds, found.score.n) == (0, 2, 0)
    assert all(map(math.isnan, (found.score.mean, found.score.lo, found.score.hi, *found.draws)))
    some = at_budget([low, high, none], 0.04, **HOW)
    assert (some.reached, some.seeds, some.score.mean) == (1, 3, pytest.approx(0.4))
    assert math.isnan(some.score.lo), "in too many resamples no seed gets there"


def test_a_cost_that_is_no_number_is_not_bridged():
    assert math.isnan(cross(np.array([[math.nan, 0.09]]), np.array([[0.1, 0.3]]), 0.04)[0])


def test_items_without_a_value_are_left_out_of_the_mean():
    assert means(np.array([[1.0, math.nan, 3.0], [math.nan] * 3]))[0] == pytest.approx(
        [2.0, math.nan], nan_ok=True
    )


def test_more_items_of_one_kind_than_of_the_other():
    rng = np.random.default_rng(0)
    f = Frontier(
        np.abs(rng.normal(0.04, 0.01, (2, 40))) * [[1], [4]], rng.normal(0.5, 0.2, (2, 7)) * [[1], [2]]
    )
    found = at_budget([f, f], 0.05, **HOW)
    assert found.score.lo < found.score.mean < found.score.hi and found.score.n == 7


def test_draws_of_two_methods_pair_up():
    rng = np.random.default_rng(1)
    items = rng.normal(0.5, 0.3, (1, 30))
    a, b = (at_budget([Frontier(np.full((1, 10), 0.02), items + d)] * 2, 0.02, **HOW) for d in (0.0, 0.1))
    assert (b.draws - a.draws) == pytest.approx(0.1)
    assert a.score.hi - a.score.lo > 0.1


def test_the_interval_covers_when_cost_trait_and_seeds_all_vary():
    """Simulated: trait = size, cost = size², measured with noise by item; at cost 0.04 the trait is 0.2."""
    rng, hits, runs = np.random.default_rng(2), 0, 120
    for i in range(runs):
        sizes, seeds = np.array([0.1, 0.3]), []
        trait_items, cost_items = rng.normal(0, 0.1, 40), rng.exponential(1.0, 40)
        for luck in rng.normal(0, 0.02, 6):
            trait = (sizes + luck * sizes / 0.2)[:, None] + trait_items + rng.normal(0, 0.05, (2, 40))
            seeds.append(Frontier((sizes**2)[:, None] * cost_items, trait))
        found = at_budget(seeds, 0.04, resamples=300, seed=i)
        hits += found.score.lo <= 0.2 <= found.score.hi
    assert hits / runs >= 0.88
