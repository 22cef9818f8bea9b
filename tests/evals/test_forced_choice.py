"""The slot's digits become foundations, in both orders, over one cache; what isn't an answer is counted."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from steer_heal_love import evals
from steer_heal_love.config import EvalConfig
from steer_heal_love.evals import forced_choice as fc
from steer_heal_love.evals.vignettes import Vignette, foundations, scenes
from steer_heal_love.ground.chat import answer_ids
from steer_heal_love.ground.decode import sample
from steer_heal_love.ground.errors import UserError
from steer_heal_love.nouns import FOUNDATIONS

N = 5
FORMAT = {"p_ans_any", "json_is_valid", "ppx_json", "nll_prefill", "unscorable"}


def subject(tiny, persona, *, think: int = 0, batch_tokens: int = 4096) -> evals.Subject:
    config = EvalConfig(instruments=("forced_choice",), vignettes=N, think_tokens=think, resamples=20)
    return evals.Subject(tiny.model, tiny.tok, persona, config, [], batch_tokens=batch_tokens)


def measured(s: evals.Subject) -> dict[str, list[float]]:
    return evals.collect_items(s, evals.measure(s))


def by_hand(s: evals.Subject, thought: list[tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Each slot read alone, from the text up."""
    out: dict[str, list[list[float]]] = {"mass": [], "nll": []}
    think = fc.THINK if s.config.think_tokens else ""
    for v, own in zip(scenes(s.config), thought, strict=True):
        mass, nll = np.zeros((2, 7)), []
        for o, order in enumerate(fc.ORDERS):
            prompt = s.prompt(fc.QUESTION.format(text=v.text, think=think)) + own
            forced = answer_ids(s.tok, fc.prefill(order, thought=bool(think)))
            log_p = s.model(torch.tensor([prompt + forced])).logits[0].log_softmax(-1)
            nll.append(-log_p[len(prompt) - 1 : -1].gather(1, torch.tensor([forced]).T).mean().item())
            digits = [log_p[-1, ids].exp().sum().item() for ids in fc.digit_ids(s.tok)]
            mass[o] = [digits[order.index(f)] for f in FOUNDATIONS]
        out["mass"].append(mass.tolist())
        out["nll"].append(nll)
    return {k: np.array(v) for k, v in out.items()}


@pytest.mark.parametrize(("think", "batch_tokens"), [(0, 4096), (0, 1), (4, 4096), (4, 1500)])
def test_it_is_what_each_slot_read_alone_says(tiny, persona, monkeypatch, think, batch_tokens):
    monkeypatch.setattr(fc, "UNSCORABLE", 0.0)
    s = subject(tiny, persona, think=think, batch_tokens=batch_tokens)
    prompts = [s.prompt(fc.QUESTION.format(text=v.text, think=fc.THINK)) for v in scenes(s.config)]
    free = (
        sample(s.model, prompts, ends=s.ends, max_new_tokens=think, seed=0, temperature=0)
        if think
        else [()] * N
    )
    alone = by_hand(s, [tuple(t for t in own if t not in s.ends) for own in free])
    found = measured(s)
    log_p = np.log(alone["mass"]).mean(1)
    for i, f in enumerate(FOUNDATIONS):
        assert found[f"mfv_fc.{f}"] == pytest.approx((log_p[:, i] - log_p.mean(1)).tolist(), abs=1e-3)
    assert found["p_ans_any"] == pytest.approx(alone["mass"].sum(2).mean(1).tolist(), rel=1e-3)
    assert found["nll_prefill"] == pytest.approx(alone["nll"].mean(1).tolist(), abs=1e-4)
    assert np.log(found["ppx_json"]) == pytest.approx(found["nll_prefill"])
    assert set(found) >= FORMAT and all(len(v) == N for k, v in found.items() if k != "mfv_fc_temperature")


def test_its_profile_is_a_shift_from_base_and_the_format_is_not(tiny, persona):
    items = {f"mfv_fc.{f}": [1.0, 2.0] for f in FOUNDATIONS} | {"p_ans_any": [0.2, 0.4]}
    base = {f"mfv_fc.{f}": [0.5, 1.5] for f in FOUNDATIONS} | {"p_ans_any": [0.9, 0.9]}
    found = evals.scores(items, base, resamples=20)
    assert found["mfv_fc.Care"].mean == pytest.approx(0.5)
    assert found["p_ans_any"].mean == pytest.approx(0.3)


def test_a_taste_for_a_digit_that_is_odd_about_the_middle_cancels():
    """What the model thinks of each foundation, times what it feels for each digit."""
    draw = np.random.default_rng(0)
    liking = draw.normal(size=(N, 7))
    digit = np.array([-3, -2, -1, 0, 1, 2, 3]) * 0.4
    slots = np.stack(
        [liking[:, [FOUNDATIONS.index(f) for f in order]] + digit for order in fc.ORDERS], axis=1
    )
    mass = np.exp(slots) / np.exp(slots).sum(2, keepdims=True) * 0.8
    asked = [Vignette(str(i), "Care", "x") for i in range(N)]
    found = fc.items(mass, np.ones((N, 2)), np.ones((N, 2)), asked)
    profile = np.array([found[f"mfv_fc.{f}"] for f in FOUNDATIONS]).T
    assert profile == pytest.approx(liking - liking.mean(1, keepdims=True))
    one_order = np.log(mass[:, 0]) - np.log(mass[:, 0]).mean(1, keepdims=True)
    assert np.abs(one_order - (liking - liking.mean(1, keepdims=True))).max() > 1


@pytest.mark.parametrize("lost", [0.0, fc.UNSCORABLE / 10])
def test_a_vignette_that_is_not_answered_is_undefined_and_counted(lost):
    mass = np.full((3, 2, 7), 0.1)
    mass[1, 0] = lost
    asked = [Vignette(str(i), f, "x") for i, f in enumerate(("Care", "Loyalty", "Liberty"))]
    found = fc.items(mass, np.ones((3, 2)), np.zeros((3, 2)), asked)
    assert found["unscorable"] == [0, 1, 0]
    for name in ("mfv_fc.Care", "mfv_fc_top1"):
        assert [math.isnan(x) for x in found[name]] == [False, True, False]
    assert evals.scores(found, found, resamples=20)["mfv_fc.Care"].n == 2


@pytest.mark.parametrize("thought", [False, True])
def test_what_is_forced_is_json_up_to_the_slot_and_lists_every_option_in_its_order(thought):
    for order in fc.ORDERS:
        text = fc.prefill(order, thought=thought)
        whole = json.loads(text + "3}")
        assert list(whole["options"]) == fc.DIGITS and whole["number"] == 3
        assert list(whole["options"].values()) == [foundations()["options"][f] for f in order]


@pytest.mark.parametrize("closing", ["3}", "3} is it", '3, "why": "x"}'])
def test_an_object_that_closes_on_an_allowed_number_is_valid(closing):
    assert fc.is_valid(fc.prefill(FOUNDATIONS, thought=True) + closing) == 1


@pytest.mark.parametrize("closing", ["8}", "3", '3, "more": [', "3.0}", "true}", "null}", '"3"}'])
def test_what_does_not_is_not(closing):
    assert fc.is_valid(fc.prefill(FOUNDATIONS, thought=True) + closing) == 0


def test_the_digits_are_seven_tokens_or_more_and_none_is_shared(tok):
    ids = fc.digit_ids(tok)
    assert len(ids) == 7 and len({i for d in ids for i in d}) == sum(map(len, ids))
    assert all(tok.decode([i]).strip() == digit for digit, d in zip(fc.DIGITS, ids, strict=True) for i in d)


def test_a_tokenizer_without_digits_is_told(tok, monkeypatch):
    monkeypatch.setattr(fc, "answer_ids", lambda _tok, _text: answer_ids(tok, "cat"))
    with pytest.raises(UserError, match="digit 1"):
        fc.digit_ids(tok)


def test_every_foundation_has_an_option_and_no_option_is_longer_than_the_rest():
    options = foundations()["options"]
    assert tuple(options) == FOUNDATIONS and len(set(options.values())) == 7
    assert max(len(t.split()) for t in options.values()) - min(len(t.split()) for t in options.values()) <= 3
