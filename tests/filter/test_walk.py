"""Walking the dose on simulated survival curves whose threshold is known."""

from __future__ import annotations

import math

import pytest

from steer_heal_love.filter.walk import Walk, between, bracket, tally, walk
from steer_heal_love.nouns import Completion, Tokens

SETTINGS = {"start": 1.0, "span": 2.0, "doses": 4, "survival": 0.6, "passes": 3, "floor": 0.05}


def simulated(curve, n=100):
    """An attempt whose coherent share at a dose is `curve(dose)`; `tried` keeps the doses by pass."""
    tried: list[list[float]] = []

    def attempt(doses):
        tried.append(list(doses))
        return [
            Completion("p", Tokens((1,), (2,)), f"{d} {i}", d, True, {"nll": 1.0}, [] if fine else ["nll"], fine)
            for d in doses
            for i in range(n)
            for fine in [i < round(curve(d) * n)]
        ]

    return attempt, tried


def logistic(threshold):
    """Survival 0.6 exactly at the threshold, falling with dose."""
    return lambda d: 1 / (1 + (2 / 3) * (d / threshold) ** 6)


@pytest.mark.parametrize("threshold", [0.09, 0.3, 0.6, 0.83, 1.0, 1.4, 1.9])
def test_the_walk_finds_a_known_threshold(threshold):
    attempt, tried = simulated(logistic(threshold), n=1000)
    found = walk(attempt, **SETTINGS)
    assert found.dose is not None and found.dose <= threshold * 1.001
    assert found.dose > 0.85 * threshold
    assert found.survival[found.dose] >= SETTINGS["survival"]
    assert len(found.completions) == 1000 * sum(map(len, tried))
    assert all(low < d for d in found.survival for low in [0.05 - 1e-9])


def test_more_passes_come_closer():
    gaps = []
    for passes in (1, 2, 4):
        attempt, tried = simulated(logistic(0.77), n=1000)
        gaps.append(0.77 - walk(attempt, **(SETTINGS | {"passes": passes})).dose)
        assert len(tried) == passes
    assert gaps[0] > gaps[1] > gaps[2] >= -1e-3


def test_all_survive_gives_the_top_of_the_first_pass():
    attempt, tried = simulated(lambda _d: 1.0)
    assert walk(attempt, **SETTINGS).dose == pytest.approx(2.0)
    assert len(tried) == 1


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


@pytest.mark.xfail(strict=True, reason="bug: walk.between rounds doses to 4 decimals, so a small floor is undercut, down to dose 0")
@pytest.mark.parametrize("floor", [0.12344, 0.00004])
def test_a_fine_floor_is_not_undercut_either(floor):
    attempt, tried = simulated(lambda _d: 0.0)
    walk(attempt, **(SETTINGS | {"floor": floor}))
    assert min(d for p in tried for d in p) >= floor


def test_no_dose_is_tried_twice():
    for threshold in (0.05, 0.1, 0.4, 0.9, 1.5):
        attempt, tried = simulated(logistic(threshold))
        walk(attempt, **SETTINGS)
        doses = [d for p in tried for d in p]
        assert len(doses) == len(set(doses))


def test_where_survival_does_not_fall_with_dose_the_smaller_failure_rules():
    """Coherent again at a high dose by luck: that dose is not taken."""
    curve = lambda d: 0.2 if 0.7 < d < 1.3 else 1.0  # noqa: E731
    attempt, _ = simulated(curve)
    found = walk(attempt, **SETTINGS)
    assert found.dose <= 0.7
    lowest = lambda d: 0.2 if d < 0.6 else 1.0  # noqa: E731
    attempt, _ = simulated(lowest)
    assert walk(attempt, **SETTINGS).dose is None


def test_bracket_by_hand():
    assert bracket({0.1: 0.9, 0.2: 0.6, 0.4: 0.5, 0.8: 0.9}, 0.6) == (0.2, 0.4)
    assert bracket({0.1: 0.1, 0.2: 0.9}, 0.6) == (None, 0.1)
    assert bracket({0.1: 0.7}, 0.6) == (0.1, None)


def test_between_is_even_in_log_and_inside():
    ends = between(0.5, 2.0, 3, ends=True)
    assert ends == pytest.approx([0.5, 1.0, 2.0])
    inner = between(0.5, 2.0, 3, ends=False)
    assert all(0.5 < d < 2.0 for d in inner)
    steps = [math.log(b / a) for a, b in zip([0.5, *inner], [*inner, 2.0], strict=True)]
    assert steps == pytest.approx([steps[0]] * 4, rel=1e-3)


def test_tally_repeats_what_the_walk_found():
    attempt, _ = simulated(logistic(0.8))
    found = walk(attempt, **SETTINGS)
    assert isinstance(found, Walk)
    counts = tally(found.completions, SETTINGS["survival"])
    assert counts["dose"] == found.dose and counts["survival"] == found.survival
    assert counts["made"] == len(found.completions)
    assert counts["made"] - counts["coherent"] == counts["reasons"]["nll"]
