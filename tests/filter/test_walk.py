"""Walking the dose on simulated survival curves whose threshold is known."""

from __future__ import annotations

import itertools
import math

import pytest

from steer_heal_love.filter.walk import (
    Walk,
    crossing,
    falling,
    rates,
    spread,
    tally,
    walk,
)
from steer_heal_love.nouns import Completion, Tokens

SETTINGS = {
    "start": 1.0,
    "span": 2.0,
    "doses": 4,
    "survival": 0.6,
    "passes": 3,
    "floor": 0.05,
    "ceiling": 8.0,
}


def simulated(curve, n=100):
    """An attempt whose coherent share at a dose is `curve(dose)`; `tried` keeps the doses by pass."""
    tried: list[list[float]] = []

    def attempt(doses):
        tried.append(list(doses))
        return [
            Completion(
                "p",
                Tokens((1,), (2,)),
                f"{d} {i}",
                d,
                True,
                {"nll": 1.0},
                [] if fine else ["nll"],
                fine,
            )
            for d in doses
            for i in range(n)
            for fine in [i < round(curve(d) * n)]
        ]

    return attempt, tried


def logistic(threshold):
    """Survival 0.6 exactly at the threshold, falling with dose."""
    return lambda d: 1 / (1 + (2 / 3) * (d / threshold) ** 6)


@pytest.mark.parametrize("threshold", [0.09, 0.3, 0.6, 0.83, 1.0, 1.4, 1.9, 5.0])
def test_the_walk_finds_a_known_threshold(threshold):
    attempt, tried = simulated(logistic(threshold), n=1000)
    found = walk(attempt, **SETTINGS)
    assert found.dose == pytest.approx(threshold, rel=0.1)
    assert len(found.completions) == 1000 * sum(map(len, tried))


def test_more_passes_come_closer():
    gaps = []
    for passes in (1, 4):
        attempt, _ = simulated(logistic(0.77), n=1000)
        gaps.append(abs(0.77 - walk(attempt, **(SETTINGS | {"doses": 3, "passes": passes})).dose))
    assert gaps[1] < 0.5 * gaps[0]


def test_all_survive_walks_up_to_the_ceiling_and_not_above():
    attempt, tried = simulated(lambda _d: 1.0)
    assert walk(attempt, **SETTINGS).dose == pytest.approx(SETTINGS["ceiling"])
    assert max(d for p in tried for d in p) <= SETTINGS["ceiling"]


def test_all_fail_starves_at_the_floor_and_not_below():
    attempt, tried = simulated(lambda _d: 0.0)
    found = walk(attempt, **SETTINGS)
    assert found.dose is None
    doses = [d for p in tried for d in p]
    assert min(doses) == pytest.approx(SETTINGS["floor"])
    assert len(found.completions) == 100 * len(doses)


@pytest.mark.parametrize("floor", [0.05, 0.3, 0.75, 5.0])
@pytest.mark.parametrize("threshold", [0.001, 0.2, 0.8])
def test_no_dose_below_the_floor_is_tried(floor, threshold):
    attempt, tried = simulated(logistic(threshold))
    found = walk(attempt, **(SETTINGS | {"floor": floor}))
    assert min(d for p in tried for d in p) >= floor
    assert found.dose is None or found.dose >= floor


@pytest.mark.parametrize("floor", [0.12344, 0.00004])
def test_a_fine_floor_is_not_undercut_either(floor):
    attempt, tried = simulated(lambda _d: 0.0)
    walk(attempt, **(SETTINGS | {"floor": floor}))
    assert min(d for p in tried for d in p) >= floor


def test_all_survive_walks_up_from_a_start_of_many_decimals_too():
    attempt, _ = simulated(lambda _d: 1.0)
    assert walk(attempt, **(SETTINGS | {"start": 0.61727})).dose == pytest.approx(SETTINGS["ceiling"])


def test_where_survival_does_not_fall_with_dose_the_closest_falling_curve_rules():
    """A lucky high dose after failures is not taken; failures below survivors pull the fit down."""
    attempt, _ = simulated(lambda d: 0.1 if d > 0.7 else 1.0)
    lucky, _ = simulated(lambda d: 1.0 if d <= 0.7 else 0.3 if d > 1.9 else 0.1)
    for one in (attempt, lucky):
        assert 0.4 <= walk(one, **(SETTINGS | {"passes": 1})).dose <= 1.0
    attempt, _ = simulated(lambda d: 0.2 if d < 0.6 else 0.7)
    assert walk(attempt, **(SETTINGS | {"passes": 1, "ceiling": 2.0})).dose is None


def test_falling_pools_adjacent_violators_by_hand():
    assert falling([0.9, 0.5, 0.1], [1, 1, 1]) == [0.9, 0.5, 0.1]
    assert falling([0.9, 0.2, 0.6, 0.1], [1, 1, 1, 1]) == pytest.approx([0.9, 0.4, 0.4, 0.1])
    assert falling([0.2, 0.6], [3, 1]) == pytest.approx([0.3, 0.3])
    assert falling([0.1, 0.2, 0.3], [1, 1, 1]) == pytest.approx([0.2] * 3)
    assert falling([], []) == []


def test_crossing_by_hand():
    assert crossing({0.1: (0.9, 5), 0.4: (0.5, 5)}, 0.7) == pytest.approx(0.2)
    assert crossing({0.1: (0.9, 5), 0.4: (0.7, 5)}, 0.7) == 0.4
    assert crossing({0.1: (0.5, 5), 0.4: (0.3, 5)}, 0.7) is None
    assert crossing({}, 0.7) is None


def test_spread_is_even_in_log_and_holds_its_ends():
    assert spread(0.5, 2.0, 3) == pytest.approx([0.5, 1.0, 2.0])
    four = spread(0.5, 2.0, 4)
    steps = [math.log(b / a) for a, b in itertools.pairwise(four)]
    assert steps == pytest.approx([steps[0]] * 3, rel=1e-3)
    assert spread(2.0, 2.0, 4) == [2.0]


def test_rates_count_what_is_coherent():
    attempt, _ = simulated(lambda d: d, n=10)
    assert rates(attempt([0.5, 0.2])) == {0.2: (0.2, 10), 0.5: (0.5, 10)}


def test_tally_repeats_what_the_walk_found():
    attempt, _ = simulated(logistic(0.8))
    found = walk(attempt, **SETTINGS)
    assert isinstance(found, Walk)
    counts = tally(found.completions, SETTINGS["survival"])
    assert counts["dose"] == found.dose and counts["survival"] == found.survival
    assert counts["made"] == len(found.completions)
    assert counts["made"] - counts["coherent"] == counts["reasons"]["nll"]


@pytest.mark.parametrize(("least", "passes"), [(0, 3), (300, 3), (2000, 6)])
def test_too_few_survivors_are_topped_up_just_below_the_dose(least, passes):
    attempt, tried = simulated(logistic(0.9))
    found = walk(attempt, **SETTINGS, least=least)
    assert len(tried) == passes
    assert max(tried[-1]) <= 0.95 and found.dose == pytest.approx(0.9, rel=0.06)
