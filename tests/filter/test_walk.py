"""Walking the dose on simulated survival curves whose half-dose is known."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import statistics

import pytest

from steer_heal_love.config import WalkConfig
from steer_heal_love.filter.walk import at, choose_dose, dose_leaving, rates, respond, spread, tally, walk
from steer_heal_love.nouns import Completion, Response, Tokens

SETTINGS = WalkConfig(start=1.0, span=2.0, doses=4, survival=0.6, passes=3, floor=0.05, ceiling=8.0)


def simulated(curve, n=100, rng=None):
    """An attempt whose coherent share at a dose is `curve(dose)`, exactly or drawn; `tried` keeps the doses by pass."""
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
            for fine in [rng.random() < curve(d) if rng else i < round(curve(d) * n)]
        ]

    return attempt, tried


def hill(plateau, half_dose, steepness=4):
    return lambda d: plateau / (1 + (d / half_dose) ** steepness)


def but(**changes):
    return dataclasses.replace(SETTINGS, **changes)


@pytest.mark.parametrize("plateau", [0.95, 0.5])
@pytest.mark.parametrize("half_dose", [0.09, 0.3, 0.6, 0.83, 1.0, 1.4, 1.9, 5.0])
def test_the_walk_finds_a_known_dose(half_dose, plateau):
    attempt, tried = simulated(hill(plateau, half_dose), n=1000)
    found = walk(attempt, SETTINGS, base=0.95)
    assert found.dose == pytest.approx(half_dose * (2 / 3) ** 0.25, rel=0.05)
    assert len(found.completions) == 1000 * sum(map(len, tried))


@pytest.mark.parametrize("steepness", [2, 8])
def test_where_the_fall_is_gentler_or_steeper_the_share_left_is_near_what_was_asked(steepness):
    curve = hill(0.8, 0.7, steepness)
    attempt, _ = simulated(curve, n=1000)
    assert curve(walk(attempt, SETTINGS, base=0.8).dose) == pytest.approx(0.6 * 0.8, abs=0.1)


def test_twelve_texts_a_dose_are_enough_for_a_steady_dose():
    """Over 60 walks of the default size the dose found spreads by less than a quarter, around the true one."""
    doses = []
    for seed in range(60):
        attempt, _ = simulated(hill(0.64, 0.24), n=12, rng=random.Random(seed))
        found = walk(attempt, WalkConfig(), base=0.64).dose
        assert found is not None
        doses.append(math.log(found))
    truth = math.log(0.24 * 0.25**0.25)
    assert statistics.stdev(doses) < 0.25
    assert abs(statistics.mean(doses) - truth) < 0.08


def test_all_survive_walks_up_to_the_ceiling_and_not_above():
    attempt, tried = simulated(lambda _d: 1.0)
    assert walk(attempt, SETTINGS, base=1.0).dose == pytest.approx(SETTINGS.ceiling)
    assert max(d for p in tried for d in p) <= SETTINGS.ceiling


def test_all_fail_starves_at_the_floor_and_not_below():
    attempt, tried = simulated(lambda _d: 0.0)
    found = walk(attempt, SETTINGS, base=0.9)
    assert found.dose is None
    doses = [d for p in tried for d in p]
    assert min(doses) == pytest.approx(SETTINGS.floor)
    assert len(found.completions) == 100 * len(doses)


@pytest.mark.parametrize("floor", [0.05, 0.3, 0.75, 5.0, 0.12344])
@pytest.mark.parametrize("half_dose", [0.001, 0.2, 0.8])
def test_no_dose_below_the_floor_is_tried(floor, half_dose):
    attempt, tried = simulated(hill(0.9, half_dose))
    found = walk(attempt, but(floor=floor), base=0.9)
    assert min(d for p in tried for d in p) >= floor
    assert found.dose is None or found.dose >= floor


def test_a_floor_of_many_decimals_is_not_undercut_either():
    attempt, tried = simulated(lambda _d: 0.0)
    walk(attempt, but(floor=0.00004), base=0.9)
    assert min(d for p in tried for d in p) >= 0.00004


def test_all_survive_walks_up_from_a_start_of_many_decimals_too():
    attempt, _ = simulated(lambda _d: 1.0)
    assert walk(attempt, SETTINGS, base=1.0, start=0.61727).dose == pytest.approx(SETTINGS.ceiling)


def test_a_lucky_high_dose_after_failures_is_not_taken():
    plain, _ = simulated(lambda d: 0.1 if d > 0.7 else 1.0)
    lucky, _ = simulated(lambda d: 1.0 if d <= 0.7 else 0.3 if d > 1.9 else 0.1)
    for attempt in (plain, lucky):
        assert 0.4 <= walk(attempt, but(passes=1), base=1.0).dose <= 1.0


def test_a_student_that_breaks_by_itself_is_asked_what_steering_costs_it():
    """Half of its text falls at any dose: the dose is still the one at which steering makes it worse."""
    attempt, _ = simulated(hill(0.45, 0.8), n=1000)
    assert walk(attempt, SETTINGS, base=0.9).dose == pytest.approx(0.8 * (2 / 3) ** 0.25, rel=0.06)


def test_the_base_counts_as_a_dozen_texts_at_dose_0():
    attempt, _ = simulated(lambda d: 0.5, n=3)
    few = respond(attempt([1.0, 2.0]), base=0.95)
    assert 0.5 < few.plateau < 0.95
    attempt, _ = simulated(hill(0.5, 30.0), n=1000)
    assert respond(attempt([1.0, 2.0]), base=0.95).plateau == pytest.approx(0.5, abs=0.02)


def test_the_curve_by_hand():
    r = Response(plateau=0.8, half_dose=2.0, steepness=4)
    assert r.share(0.0) == 0.8 and r.share(2.0) == pytest.approx(0.4)
    assert r.dose(0.5) == pytest.approx(2.0)
    assert r.share(r.dose(0.7)) == pytest.approx(0.7 * 0.8)


def test_nothing_sampled_has_no_dose():
    assert choose_dose([], SETTINGS, base=0.9) is None


def test_spread_is_even_in_log_and_holds_its_ends():
    assert spread(0.5, 2.0, 3) == pytest.approx([0.5, 1.0, 2.0])
    four = spread(0.5, 2.0, 4)
    steps = [math.log(b / a) for a, b in itertools.pairwise(four)]
    assert steps == pytest.approx([steps[0]] * 3, rel=1e-3)
    assert spread(2.0, 2.0, 4) == [2.0]


def test_the_mean_over_curves_wanders_less_than_the_likeliest_and_about_the_truth():
    """Eight doses of a dozen texts, as a default walk has: sixty draws of a curve that is known."""
    doses, known = spread(0.06, 0.24, 8), Response(0.7, 0.15, 4.0)
    apart = {"mean": [], "likeliest": []}
    for seed in range(60):
        attempt, _ = simulated(known.share, n=12, rng=random.Random(seed))
        made = attempt(doses)
        for name, dose in (
            ("mean", dose_leaving(made, 0.8, 0.8)),
            ("likeliest", respond(made, 0.8).dose(0.8)),
        ):
            apart[name].append(math.log(dose / known.dose(0.8)))
    assert statistics.pstdev(apart["mean"]) < 0.8 * statistics.pstdev(apart["likeliest"])
    assert abs(statistics.mean(apart["mean"])) < 0.1


def test_rates_count_what_is_coherent():
    attempt, _ = simulated(lambda d: d, n=10)
    assert rates(attempt([0.5, 0.2])) == {0.2: (0.2, 10), 0.5: (0.5, 10)}


def test_tally_repeats_what_the_walk_found():
    attempt, _ = simulated(hill(0.9, 0.8))
    found = walk(attempt, SETTINGS, base=0.9)
    counts = tally(found.completions, SETTINGS, base=0.9)
    assert counts["dose"] == found.dose and counts["survival"] == found.survival
    assert counts["response"].dose(SETTINGS.survival) == pytest.approx(found.dose, rel=0.02)
    assert counts["made"] == len(found.completions)
    assert counts["made"] - counts["coherent"] == counts["reasons"]["nll"]


@pytest.mark.parametrize(("least", "passes"), [(0, 3), (300, 3), (2000, 6)])
def test_too_few_survivors_are_topped_up_just_below_the_dose(least, passes):
    attempt, tried = simulated(hill(0.9, 1.0))
    found = walk(attempt, SETTINGS, base=0.9, least=least)
    assert len(tried) == passes
    assert max(tried[-1]) <= 0.95 and found.dose == pytest.approx((2 / 3) ** 0.25, rel=0.06)


def test_text_at_a_given_dose_is_as_much_as_a_walk_makes_and_its_dose_is_that_one():
    attempt, tried = simulated(hill(0.95, 0.1), n=3)
    given = but(kind="iso_kl")
    found = at(attempt, 0.7, given)
    assert tried == [[0.7] * SETTINGS.doses] * SETTINGS.passes and found.dose == 0.7
    assert choose_dose(found.completions, given, 0.95) == tally(found.completions, given, 0.95)["dose"] == 0.7
    assert choose_dose(found.completions, SETTINGS, 0.95) != 0.7
    at(attempt, 0.7, given, least=10**6)
    assert len(tried) == SETTINGS.passes + 2 * SETTINGS.passes
