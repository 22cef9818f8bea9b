"""The dose in nats: against a divergence computed from whole logits, for every operation."""

from __future__ import annotations

import math

import pytest
import torch
from tests.ground.test_operations import made, sliding
from tests.tiny_model import build_model, hooks_of

from steer_heal_love.config import GenerateConfig
from steer_heal_love.ground.decode import sample
from steer_heal_love.ground.operations import Steering, operations
from steer_heal_love.vector.iso_kl import LEAST, MOST, Reading, Trials, aim, iso_kl, readings

DRAW = torch.Generator().manual_seed(3)
PROMPTS = [tuple(torch.randint(4, 60, (n,), generator=DRAW).tolist()) for n in (4, 9, 6, 5)]
DIRECTIONS = {i: torch.randn(32, generator=DRAW) for i in (1, 3)}
TRIALS = Trials(PROMPTS * 6, frozenset({2}), GenerateConfig(max_new_tokens=12, min_p=0.0), seed=5)


@pytest.fixture(scope="module", params=["plain", "sliding"])
def net(request):
    return build_model(64, 2) if request.param == "plain" else sliding()


def naive(net, steering, dose):
    """The 95th percentile over the same draws, from the logits of one whole row at a time."""
    answers = sample(
        net,
        TRIALS.prompts,
        ends=TRIALS.ends,
        max_new_tokens=12,
        seed=5,
        steer=steering.directions,
        min_p=0.0,
        operation=steering.operation,
        doses=[dose] * len(TRIALS.prompts),
        temperature=TRIALS.config.temperature,
    )
    found = []
    for prompt, answer in zip(TRIALS.prompts, answers, strict=True):
        ids, at = torch.tensor([prompt + answer]), slice(len(prompt) - 1, len(prompt) + len(answer) - 1)
        plain = net(ids).logits[0, at].double().log_softmax(-1)
        with steering(net, dose):
            steered = net(ids).logits[0, at].double().log_softmax(-1)
        found += (steered.exp() * (steered - plain)).sum(-1).tolist()
    return torch.tensor(found).quantile(0.95).item(), len(found)


@pytest.mark.parametrize("name", sorted(operations))
def test_the_dose_for_given_nats_is_found_and_dose_zero_costs_none(net, name):
    steering = Steering(made(name), name)
    (nothing,) = readings(net, steering, [0.0], TRIALS, seed=5)
    assert nothing.kl_nats == pytest.approx(0.0, abs=1e-6) and nothing.n > 0
    less, more = iso_kl(net, steering, (0.05, 0.2), TRIALS, start=0.1, passes=6)
    assert less.reached and more.reached and 0 < less.dose < more.dose
    assert {less.kl_nats, more.kl_nats} <= {r.kl_nats for r in less.tried} and less.passes <= 6
    assert hooks_of(net) == 0


@pytest.mark.parametrize("name", ["add", "rotate"])
def test_a_reading_is_the_percentile_of_whole_distributions(net, name):
    (found,) = readings(net, Steering(DIRECTIONS, name), [0.3], TRIALS, seed=5)
    want, n = naive(net, Steering(DIRECTIONS, name), 0.3)
    assert found.n == n and found.kl_nats == pytest.approx(want, rel=1e-3)


def test_a_target_out_of_reach_gives_the_nearest_reading_and_says_so(net):
    found = iso_kl(net, Steering(DIRECTIONS, "rotate"), [50.0], TRIALS, passes=3)[0]
    assert not found.reached and found.kl_nats == max(r.kl_nats for r in found.tried)
    with pytest.raises(ValueError, match="above 0"):
        iso_kl(net, Steering(DIRECTIONS), [0.0], TRIALS)


def test_the_next_dose_is_exact_where_nats_are_a_power_of_the_dose():
    curve = lambda d: Reading(d, 3.0 * d**2, 9)
    assert aim([curve(0.1), curve(0.9)], 0.75) == pytest.approx(0.5, rel=1e-3)
    assert aim([curve(0.1), curve(0.2)], 0.75) == pytest.approx(0.5, rel=1e-3)
    assert aim([curve(0.9), curve(0.8)], 0.75) == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize(("kl", "bound"), [(0.0, MOST), (math.inf, LEAST)])
def test_no_dose_is_tried_out_of_bounds(kl, bound):
    dose = 32.0 if bound == MOST else 2 * LEAST
    assert aim([Reading(dose, kl, 9)], 1.0) == bound
