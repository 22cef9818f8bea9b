"""Nulls traced in closed form against the contexts themselves; a stage that is a null has nothing above it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from steer_heal_love import evals
from steer_heal_love.config import EvalConfig
from steer_heal_love.evals import nulls
from steer_heal_love.ground.chat import prompt_ids
from steer_heal_love.ground.hooks import biased, cooled
from steer_heal_love.ground.stats import bootstrap
from steer_heal_love.nouns import Completion, Stage, Tokens

CONFIG = EvalConfig(instruments=("probes", "neutral"), resamples=200)


@pytest.fixture
def subject(model, tok, persona, sequences):
    prompts = [f"Tell me of {i} cats." for i in range(len(sequences))]
    reference = evals.neutral_reference(model, tok, prompts, [s.answer for s in sequences], 4096)
    return evals.Subject(model, tok, persona, CONFIG, reference)


@pytest.fixture
def answers(tok, persona, sequences):
    make = lambda text, s: Completion(text, Tokens(prompt_ids(tok, text), s.answer), "", 0.0, True)
    return [make(text, s) for text, s in zip(persona.elicit, sequences, strict=False)]


@pytest.fixture
def base(subject):
    return evals.evaluate(subject, "base")


def context(subject, b, name, strength):
    return lambda: (
        biased(subject.model, strength * b) if name == "bias" else cooled(subject.model, 1 / strength)
    )


def test_the_bias_is_the_mean_logit_difference_of_the_two_told_models(subject, answers):
    rows = []
    for c in answers:
        told = []
        for pole in ("pos", "neg"):
            prompt = prompt_ids(subject.tok, c.prompt, subject.persona.system(pole))
            ids = torch.tensor([prompt + c.tokens.answer])
            told.append(subject.model(ids).logits[0, len(prompt) - 1 : -1])
        rows.append(told[0] - told[1])
    assert torch.allclose(nulls.bias(subject, answers), torch.cat(rows).mean(0), atol=1e-4)


def test_what_is_traced_is_what_the_instruments_read_inside_the_context(subject, answers, base):
    found, b = nulls.traced(subject, answers), nulls.bias(subject, answers)
    assert set(found) == {"bias", "cooled", "heated"}
    for name, null in found.items():
        for i in (0, len(null.strengths) // 2, len(null.strengths) - 1):
            stage = evals.evaluate(subject, "healed", context(subject, b, name, null.strengths[i]), base=base)
            trait = np.array(null.nll_neg[i]) - np.array(null.nll_pos[i])
            assert stage.items["trait"] == pytest.approx(trait.tolist(), abs=2e-3)
            assert stage.items["neutral_kl"] == pytest.approx(null.neutral_kl[i], abs=1e-3, rel=1e-3)
        costs = [np.mean(row) for row in null.neutral_kl]
        assert costs == sorted(costs) and costs[0] > 0


def test_strength_zero_is_the_base(subject, answers, base, monkeypatch):
    monkeypatch.setattr(nulls, "STRENGTHS", {"bias": (0.0,), "cooled": (1.0,)})
    for null in nulls.traced(subject, answers).values():
        assert np.subtract(null.nll_neg, null.nll_pos)[0] == pytest.approx(base.items["trait"], abs=1e-4)
        assert null.neutral_kl[0] == pytest.approx([0.0] * len(subject.neutral), abs=1e-5)


def test_a_null_has_nothing_above_the_best_null_and_a_stage_with_more_has(subject, answers, base):
    found = nulls.traced(subject, answers)
    best = max(found, key=lambda n: np.subtract(found[n].nll_neg[2], found[n].nll_pos[2]).mean())
    b = nulls.bias(subject, answers)
    stage = evals.evaluate(subject, "healed", context(subject, b, best, found[best].strengths[2]), base=base)
    own = nulls.beside(stage, base, {best: found[best]}, resamples=200)
    shift = own.scores["trait_shift"].mean
    assert own.scores["above_null"].mean == pytest.approx(0 if shift > 0 else shift, abs=2e-3)
    lifted = replace(stage, items=stage.items | {"trait": [x + 9 for x in stage.items["trait"]]})
    more = nulls.beside(lifted, base, found, resamples=200)
    assert more.scores["above_null"].lo > 0
    assert np.mean(more.items["above_null"]) == pytest.approx(more.scores["above_null"].mean)
    assert more.scores["above_null"].mean <= 9 + own.scores["above_null"].mean + 1e-6, (
        "the best is no worse than one"
    )


def stage_of(items):
    return Stage(0, "healed", {n: bootstrap(v, resamples=50) for n, v in items.items()}, items)


def test_what_was_not_measured_or_not_reached_is_undefined(subject, answers, base):
    assert nulls.traced(replace(subject, neutral=[]), answers) == {}
    assert nulls.traced(subject, []) == {}
    found = nulls.traced(subject, answers)
    bare = stage_of({"trait": base.items["trait"]})
    assert nulls.beside(bare, base, found, resamples=50) is bare
    assert nulls.beside(base, base, {}, resamples=50) is base
    far = stage_of({"trait": base.items["trait"], "neutral_kl": [1e3] * 5})
    assert math.isnan(nulls.beside(far, base, found, resamples=50).scores["above_null"].mean)


def line(slope, items, kls):
    """A null whose trait is slope·√KL: by strength s, KL s²·kl_i and trait slope·s·(1 + item), where kl_i is 1 on average."""
    s = np.array([0.1, 0.2, 0.3, 0.5, 1.0])[:, None]
    trait = slope * s * (1 + items)
    return nulls.Traced([*s[:, 0]], (s**2 * kls).tolist(), (-trait).tolist(), np.zeros_like(trait).tolist())


def test_the_better_null_at_the_stages_own_drift_is_taken_and_the_interval_covers():
    g, covered = np.random.default_rng(0), []
    for i in range(300):
        probe, own = 0.5 * g.normal(size=48), 0.1 * g.normal(size=48)
        text = g.exponential(size=60)
        found = {"bias": line(0.8, probe, text), "cooled": line(0.4, probe, text)}
        kl = 0.09 * text * (1 + 0.3 * g.normal(size=60))
        trait = 1.0 * 0.3 * (1 + probe) + own
        base = stage_of({"trait": [0.0] * 48, "neutral_kl": [0.0] * 60})
        stage = nulls.beside(
            stage_of({"trait": trait.tolist(), "neutral_kl": kl.tolist()}), base, found, resamples=200
        )
        score = stage.scores["above_null"]
        covered.append(score.lo <= 0.06 <= score.hi)
        if not i:
            at = 0.8 * math.sqrt(np.mean(kl) / np.mean(text))
            assert stage.scores["null_trait"].mean == pytest.approx(at * np.mean(1 + probe), rel=1e-6)
    assert np.mean(covered) >= 0.95


def test_a_null_that_loses_trait_is_beaten_by_doing_nothing():
    items, text = np.zeros(6), np.ones(5)
    base = stage_of({"trait": [0.0] * 6, "neutral_kl": [0.0] * 5})
    stage = stage_of({"trait": [0.1] * 6, "neutral_kl": [0.04] * 5})
    found = nulls.beside(stage, base, {"bias": line(-1.0, items, text)}, resamples=50)
    assert found.scores["above_null"].mean == pytest.approx(0.1)


def test_nulls_are_data(subject, answers, tmp_path):
    found = nulls.traced(subject, answers)
    nulls.save(found, tmp_path / "nulls.json")
    assert nulls.load(tmp_path / "nulls.json") == found
