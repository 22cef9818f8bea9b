"""The profile's intervals cover vignettes and sentences; the share that is one constant is what was put in."""

from __future__ import annotations

import math

import numpy as np
import pytest

from steer_heal_love import evals
from steer_heal_love.config import EvalConfig
from steer_heal_love.evals import profile
from steer_heal_love.evals.vignettes import by_sentence
from steer_heal_love.ground.stats import paired
from steer_heal_love.nouns import FOUNDATIONS, Score


def shifted(g: np.random.Generator, *, n: int, p: int, sentences: float) -> tuple[dict, dict]:
    """Items of base and model whose true shift is 0: sentences that move by themselves, vignettes that do too."""
    base = g.normal(size=(n, len(FOUNDATIONS), p))
    moved = base + sentences * g.normal(size=(1, len(FOUNDATIONS), p)) + 0.3 * g.normal(size=base.shape)
    return tuple(
        {f"mfv.{f}": (t - t.mean(1, keepdims=True)).mean(2)[:, i].tolist() for i, f in enumerate(FOUNDATIONS)}
        | by_sentence(t)
        for t in (base, moved)
    )


def profiles(items: dict, base: dict) -> list[Score]:
    """The shift of every foundation with its interval."""
    names = [f"mfv.{f}" for f in FOUNDATIONS]
    return [profile.with_sentences(n, paired(items[n], base[n], resamples=40), items, base) for n in names]


@pytest.mark.parametrize("p", [2, 4])
@pytest.mark.parametrize("sentences", [0.0, 0.2])
def test_the_interval_covers_over_vignettes_and_sentences(p, sentences):
    g, hits = np.random.default_rng(p), []
    for _ in range(40):
        base, moved = shifted(g, n=35, p=p, sentences=sentences)
        hits += [s.lo <= 0 <= s.hi for s in profiles(moved, base)]
    assert np.mean(hits) >= 0.92


def test_vignettes_alone_would_not_cover():
    g, hits = np.random.default_rng(0), []
    for _ in range(30):
        base, moved = shifted(g, n=35, p=4, sentences=0.2)
        without = {k: v for k, v in moved.items() if not k.startswith(profile.SENTENCE)}
        hits += [s.lo <= 0 <= s.hi for s in profiles(without, base)]
    assert np.mean(hits) < 0.8


def test_one_sentence_has_no_spread_and_sentences_are_no_scores():
    g = np.random.default_rng(1)
    base, moved = shifted(g, n=20, p=1, sentences=0.2)
    assert not any(k.startswith("mfv_sentence") for k in moved)
    base, moved = shifted(g, n=20, p=3, sentences=0.2)
    found = evals.scores(moved, base, resamples=50)
    assert set(found) == {f"mfv.{f}" for f in FOUNDATIONS} | {"mfv_constant_share"}
    assert len(moved["mfv_sentence.Care"]) == 3


@pytest.mark.parametrize("share", [0.0, 0.4, 0.9])
def test_the_share_of_one_constant_a_foundation_is_what_was_put_in_and_its_interval_covers(share):
    g, hits, means = np.random.default_rng(3), [], []
    constant = np.array([0.5, -0.3, 0.1, -0.3, 0.2, -0.1, -0.1])
    size = math.sqrt((constant**2).sum() * (1 - share) / share / 7) if share else 1.0
    names = [f"mfv.{f}" for f in FOUNDATIONS]
    for _ in range(60):
        d = (share > 0) * constant + size * g.normal(size=(35, 7))
        items, base = dict(zip(names, d.T.tolist(), strict=True)), {n: [0.0] * 35 for n in names}
        found = profile.constant_share(items, base, resamples=40)["mfv_constant_share"]
        hits.append(found.lo <= share <= found.hi)
        means.append(found.mean)
    assert np.mean(means) == pytest.approx(share, abs=0.03)
    assert np.mean(hits) >= 0.9


def test_the_base_has_no_share():
    items = {f"mfv.{f}": [0.1, 0.2, 0.3] for f in FOUNDATIONS}
    found = profile.constant_share(items, items, resamples=20)["mfv_constant_share"]
    assert math.isnan(found.mean) and found.n == 0
    assert profile.constant_share({}, {}, resamples=20) == {}


def test_the_instrument_gives_each_sentence_its_profile(tiny, persona):
    config = EvalConfig(instruments=("vignettes",), vignettes=7, paraphrases=3, resamples=20)
    subject = evals.Subject(tiny.model, tiny.tok, persona, config, [])
    items = evals.collect_items(subject, evals.measure(subject))
    for f in FOUNDATIONS:
        assert len(items[f"mfv.{f}"]) == 7 and len(items[f"mfv_sentence.{f}"]) == 3
        assert np.mean(items[f"mfv_sentence.{f}"]) == pytest.approx(np.mean(items[f"mfv.{f}"]), abs=1e-5)
