"""Constructed frontiers with known crossings; undefined is NaN and counted; intervals that hold what they promise
with three seeds, for values at a budget and for differences of two methods."""

from __future__ import annotations

import math

import numpy as np
import pytest

from steer_heal_love.compare import best
from steer_heal_love.compare.frontier import Frontier, above, at_budget, cross, difference, mean_of, within
from steer_heal_love.ground.stats import crossed
from steer_heal_love.nouns import Score

HOW = {"resamples": 400}


def flat(cost, score, items=6):
    """A frontier whose items are all alike."""
    return Frontier(*(np.repeat(np.array(v, dtype=float)[:, None], items, 1) for v in (cost, score)))


def value(cost, score, budget):
    found = cross(flat(cost, score), budget, root=True)
    return math.nan if found is None else found[0].mean()


@pytest.mark.parametrize(
    "read", [lambda f, b: at_budget(f, b, **HOW), lambda f, b: within(f, (b,), **HOW)[0]]
)
def test_at_a_cells_own_cost_it_has_that_cells_score(read):
    f = flat([0.01, 0.04, 0.09], [0.2, 0.4, 0.6])
    for cost, score in zip((0.01, 0.04, 0.09), (0.2, 0.4, 0.6), strict=True):
        found = read([f], cost)
        assert found.score.mean == pytest.approx(score)
        assert found.score.lo == pytest.approx(score)
        assert (found.reached, found.seeds, found.score.n) == (1, 1, 6)


def test_a_trait_that_grows_with_the_root_of_the_cost_is_found_exactly_between_cells():
    kl = np.array([0.01, 0.04, 0.25])
    f = flat(kl, 2.0 * np.sqrt(kl))
    for budget in (0.001, 0.02, 0.05, 0.2):
        assert at_budget([f], budget, **HOW).score.mean == pytest.approx(2 * math.sqrt(budget))


def test_below_the_first_cell_the_frontier_starts_at_the_base():
    assert value([0.16], [0.8], 0.04) == pytest.approx(0.4)


def test_the_first_crossing_counts_and_a_frontier_may_turn_back():
    assert value([0.01, 0.09, 0.01, 0.16], [0.1, 0.3, 0.9, 1.0], 0.04) == pytest.approx(0.2)
    (found,) = within([flat([0.02, 0.06, -0.02, 0.2], [0.1, 0.3, 0.5, 0.7])], (0.04,), **HOW)
    assert found.score.mean == pytest.approx(0.2, abs=0.01)
    assert found.score.hi == pytest.approx(0.5 + 0.2 * 0.06 / 0.22, abs=0.02), "it may be the last crossing"


def test_a_negative_cost_is_none():
    assert value([-1e-7, 0.04], [0.1, 0.3], 0.01) == pytest.approx(0.2)


def test_what_never_gets_there_is_undefined_and_counted():
    low, high, none = flat([0.01], [0.2]), flat([0.04], [0.4]), Frontier(np.empty((0, 1)), np.empty((0, 1)))
    found = at_budget([low, none], 0.02, **HOW)
    assert (found.reached, found.seeds, found.score.n) == (0, 2, 0)
    assert all(map(math.isnan, (found.score.mean, found.score.lo, found.score.hi)))
    some = at_budget([low, high, none], 0.04, **HOW)
    assert (some.reached, some.seeds, some.score.mean) == (1, 3, pytest.approx(0.4))
    assert math.isnan(some.score.lo), "the seeds that get there are no draw from all"
    assert math.isnan(above(some, some).mean)


def test_a_cost_that_stays_inside_has_a_least_score_alone_and_none_without_cells():
    inside, over, none = (
        flat([0.01], [0.2]),
        flat([0.04], [0.4]),
        Frontier(np.empty((0, 1)), np.empty((0, 1))),
    )
    (found,) = within([inside, inside], (0.02,), **HOW)
    assert found.reached == 0 and math.isnan(found.score.mean)
    (reached,) = within([over, over], (0.02,), **HOW)
    assert reached.reached == 2 and reached.score.mean == pytest.approx(0.2)
    assert math.isnan(difference(found.score, reached.score).mean)
    (empty,) = within([none, none], (0.02,), **HOW)
    assert empty.reached == 0 and math.isnan(empty.score.mean) and math.isnan(empty.score.lo)
    g = np.random.default_rng(0)
    noisy = [Frontier(g.normal(0.01, 0.1, (1, 40)), np.full((1, 9), 0.2)) for _ in range(3)]
    (open_,) = within(noisy, (0.02,), **HOW)
    assert 0 < open_.score.lo < 0.2 and open_.score.hi == math.inf


def test_a_cost_that_is_no_number_is_not_bridged():
    assert math.isnan(value([math.nan, 0.09], [0.1, 0.3], 0.04))


def test_items_without_a_value_are_left_out_of_the_mean():
    assert mean_of(np.array([[1.0, math.nan, 3.0], [math.nan] * 3])) == pytest.approx(
        [2.0, math.nan], nan_ok=True
    )


def test_more_items_of_one_kind_than_of_the_other():
    rng = np.random.default_rng(0)
    f = Frontier(
        np.abs(rng.normal(0.04, 0.01, (2, 40))) * [[1], [4]], rng.normal(0.5, 0.2, (2, 7)) * [[1], [2]]
    )
    found = at_budget([f, f], 0.05, **HOW)
    assert found.score.lo < found.score.mean < found.score.hi and found.score.n == 7


def test_where_the_cost_is_known_it_is_the_interval_of_the_scores_items_and_seeds():
    rng = np.random.default_rng(4)
    items = rng.normal(0.5, 0.3, (3, 30)) + rng.normal(0, 0.1, (3, 1))
    found = at_budget([Frontier(np.full((1, 10), 0.02), row[None]) for row in items], 0.02, **HOW).score
    expected = crossed(items.tolist(), **HOW)
    assert (found.mean, found.lo, found.hi) == pytest.approx((expected.mean, expected.lo, expected.hi))


def test_two_methods_pair_up_by_item_and_seed():
    rng = np.random.default_rng(1)
    items = rng.normal(0.5, 0.3, (1, 30))
    a, b = (at_budget([Frontier(np.full((1, 10), 0.02), items + d)] * 2, 0.02, **HOW) for d in (0.0, 0.1))
    found = above(b, a, **HOW)
    assert (found.mean, found.lo, found.hi) == pytest.approx((0.1, 0.1, 0.1))
    assert a.score.hi - a.score.lo > 0.1


def test_intervals_that_are_set_apart_add_in_quadrature():
    found = difference(Score(0.5, 0.2, 0.9, 9), Score(0.3, 0.0, 0.7, 9))
    assert (found.mean, found.lo, found.hi) == pytest.approx((0.2, 0.2 - 0.5, 0.2 + 0.5))
    open_ = difference(Score(0.5, 0.2, math.inf, 9), Score(0.3, 0.0, 0.7, 9))
    assert open_.lo == pytest.approx(-0.3) and open_.hi == math.inf


STRENGTHS = np.array([[0.25], [0.5], [0.75], [1.0], [1.5]])


class Study:
    """Two methods on the same items and seeds: trait = size·x, kl = 0.12·x² and own_excess = 0.12·x² in expectation.
    What an item or a seed adds is partly the methods' own, partly theirs in common."""

    sizes = (0.32, 0.25)

    def __init__(self, g, luck, odd_luck, seeds=3):
        of_probe, of_text, of_neutral = g.normal(size=48), g.normal(size=64), g.exponential(size=40)
        common = g.normal(size=(seeds, 2))
        self.kl, self.odd = [], []
        for size in self.sizes:
            self.kl.append([])
            self.odd.append([])
            for s in range(seeds):
                a, b = luck * (common[s, 0] + 0.5 * g.normal()), odd_luck * (common[s, 1] + 0.5 * g.normal())
                trait = STRENGTHS * (size * (1 + a) * (1 + 0.5 * of_probe) + 0.03 * g.normal(size=48))
                kl = 0.12 * STRENGTHS**2 * (1 + a) ** 2 * of_neutral * (1 + 0.1 * g.normal(size=(5, 40)))
                noise = 0.4 * of_text + 0.5 * g.normal(size=64) + 0.75 * g.normal(size=(5, 64))
                self.kl[-1].append(Frontier(kl, trait))
                self.odd[-1].append(Frontier(0.12 * STRENGTHS**2 + b * STRENGTHS + 0.24 * noise, trait))


def covered(intervals, truth):
    return np.mean([s.lo <= truth <= s.hi for s in intervals])


@pytest.mark.parametrize("luck, odd_luck", [(0.0, 0.0), (0.05, 0.02), (0.15, 0.05)])
def test_three_seeds_cover_at_a_budget_of_neutral_kl(luck, odd_luck):
    g, values, gaps = np.random.default_rng(2), [], []
    for i in range(400):
        both = [at_budget(f, 0.05, resamples=300, seed=i) for f in Study(g, luck, odd_luck).kl]
        values.append(both[0].score)
        gaps.append(above(*both, resamples=300, seed=i))
    x = math.sqrt(0.05 / 0.12)
    assert covered(values, 0.32 * x) >= 0.93
    assert covered(gaps, 0.07 * x) >= 0.93
    widths = [np.nanmean([s.hi - s.lo for s in made]) for made in (gaps, values)]
    assert widths[0] < 0.6 * widths[1], "pairing takes away what they share"


@pytest.mark.parametrize("luck, odd_luck", [(0.0, 0.0), (0.15, 0.05)])
def test_three_seeds_cover_at_budgets_of_own_excess(luck, odd_luck):
    g, budgets = np.random.default_rng(3), (0.02, 0.05, 0.1)
    values, gaps = ({b: [] for b in budgets} for _ in range(2))
    for i in range(120):
        study = Study(g, luck, odd_luck)
        both = [within(f, budgets, resamples=200, seed=i) for f in study.odd]
        for b, mine, other in zip(budgets, *both, strict=True):
            values[b].append(mine.score)
            if mine.reached and other.reached:
                gaps[b].append(difference(mine.score, other.score))
    for b in budgets:
        x = np.interp(b, [0, *(0.12 * STRENGTHS[:, 0] ** 2)], [0, *STRENGTHS[:, 0]])
        assert covered(values[b], 0.32 * x) >= 0.93
        assert len(gaps[b]) > 80 and covered(gaps[b], 0.07 * x) >= 0.93


def test_several_looks_hold_together_with_three_seeds():
    g, together = np.random.default_rng(5), 0
    for i in range(150):
        a, b = Study(g, 0.05, 0.02).kl
        gaps = []
        for budget in (0.02, 0.05, 0.1):
            one, other = (at_budget(f, budget, resamples=300, seed=i) for f in (a, b))
            gaps.append(
                (above(one, other, resamples=1000, seed=i, comparisons=3), 0.07 * math.sqrt(budget / 0.12))
            )
        together += all(s.lo <= truth <= s.hi for s, truth in gaps)
    assert together / 150 >= 0.93


@pytest.mark.parametrize("luck", [0.0, 0.15])
def test_what_lies_above_the_best_of_two_nulls_holds_together(luck):
    """Two nulls as good as each other: that the luckier one is taken must not make the intervals promise too much."""
    g, budgets, together = np.random.default_rng(6), (0.02, 0.05), 0
    for i in range(100):
        (method, null), (_, other) = Study(g, luck, 0.02).kl, Study(g, luck, 0.02).kl
        named = {"method": method, "null": null, "other": other}
        trait = {n: [at_budget(f, b, resamples=200, seed=i) for b in budgets] for n, f in named.items()}
        found, comparisons = best.beyond(trait, ["null", "other"], budgets, 400)
        assert comparisons == 4 and found["null"][0]["best_null"] in ("null", "other")
        truth = [0.07 * math.sqrt(b / 0.12) for b in budgets]
        above_null = [row["above_null"] for row in found["method"]]
        together += all(s.lo <= t <= s.hi for s, t in zip(above_null, truth, strict=True))
    assert together / 100 >= 0.93
