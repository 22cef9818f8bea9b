"""Steering under a condition: rows that meet it are the steered ones, all others the unsteered ones, in every way of decoding."""

from __future__ import annotations

import pytest
import torch
from tests.ground.test_operations import sliding
from tests.tiny_model import build_model, build_tokenizer, hooks_of

from steer_heal_love.ground.adaptive import written
from steer_heal_love.ground.condition import Condition
from steer_heal_love.ground.decode import sample
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.operations import Steering
from steer_heal_love.ground.policy import Policy
from steer_heal_love.vector.conditional import conditioned, threshold

DRAW = torch.Generator().manual_seed(3)
PROMPTS = [tuple(torch.randint(4, 60, (n,), generator=DRAW).tolist()) for n in (4, 9, 6, 4, 7)]
STEER = {1: torch.randn(32, generator=DRAW)}
DOSES = [2.0] * len(PROMPTS)
HOW = {"ends": frozenset({2}), "max_new_tokens": 6, "seed": 1, "min_p": 0.0}


@pytest.fixture(scope="module", params=["plain", "sliding"])
def net(request):
    return build_model(64, 2) if request.param == "plain" else sliding()


@pytest.fixture
def condition(net):
    """One that about half of the prompts meet."""
    c = Condition(2, torch.ones(32), torch.zeros(32), 0.0)
    middle = sorted(c.cosines(net, PROMPTS))[len(PROMPTS) // 2]
    return Condition(2, c.direction, c.mean, middle - 1e-6)


def test_rows_that_meet_it_are_steered_and_all_others_are_not(net, condition):
    met = [x > condition.threshold for x in condition.cosines(net, PROMPTS)]
    assert any(met) and not all(met)
    plain, steered = sample(net, PROMPTS, **HOW), sample(net, PROMPTS, steer=STEER, doses=DOSES, **HOW)
    for kind in (True, False):
        assert any(a != b for a, b, m in zip(plain, steered, met, strict=True) if m is kind)
    want = [s if m else p for s, p, m in zip(steered, plain, met, strict=True)]
    assert sample(net, PROMPTS, steer=STEER, doses=DOSES, when=condition, **HOW) == want
    assert sample(net, PROMPTS, steer=STEER, doses=DOSES, when=condition, batch=1, **HOW) == want
    made = written(
        net, PROMPTS, steering=Steering(STEER), doses=DOSES, policy=Policy(), when=condition, **HOW
    )
    assert made.answers == want and hooks_of(net) == 0


@pytest.mark.parametrize(("least", "dose"), [(1.0, 0.0), (-1.1, 2.0)])
def test_a_threshold_at_either_end_never_or_always_steers(net, condition, least, dose):
    end = Condition(2, condition.direction, condition.mean, least)
    assert end.doses(net, PROMPTS, DOSES) == [dose] * len(PROMPTS)


def test_it_does_not_depend_on_the_batch_and_says_that_it_does_not_fold(net, condition):
    alone = [condition.cosines(net, [p])[0] for p in PROMPTS]
    assert condition.cosines(net, PROMPTS) == pytest.approx(alone, abs=1e-4)
    assert not condition.folding.exact and not condition.folding.at_linear


def test_the_threshold_is_between_the_kinds_and_where_fewest_are_wrong():
    assert threshold([0.5, 0.7], [-0.2, 0.1]) == pytest.approx(0.3)
    assert 0.1 < threshold([0.05, 0.5, 0.7], [-0.2, 0.1, 0.0]) < 0.5


def test_a_condition_tells_two_kinds_of_prompts_apart_on_those_it_was_not_read_on():
    tok = build_tokenizer()
    net = build_model(len(tok), tok.eos_token_id)
    cats = [
        f"The cat sat on the {w}" for w in ("mat", "loaf", "bread", "cat", "warm", "other", "mat", "bread")
    ]
    whys = [f"Why {w}?" for w in ("not", "alone", "they", "there", "time", "say", "not", "you")]
    found = conditioned(net, tok, cats, whys, layer=2)
    assert found.steered.n == found.left.n == 4 and found.steered.mean > found.left.mean
    with pytest.raises(UserError, match="at least 4"):
        conditioned(net, tok, cats[:3], whys, layer=2)
