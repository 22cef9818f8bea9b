"""The two-sample test of text: what it says of equal, of different and of identical texts, and how sure it is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from steer_heal_love import evals
from steer_heal_love.evals.text_auc import auc_by_prompt, ranked_higher

WORDS = [f"{a}{b}" for a in ("ba", "co", "di", "fu", "ge", "ho") for b in ("lan", "mer", "nik", "pos", "tur")]


def texts(rng: np.random.Generator, draws: int, topic: np.ndarray, shift: float) -> list[str]:
    """Answers of 20 words on a topic, the first six words of the list likelier by `shift`."""
    p = 0.5 / len(WORDS) + 0.5 * topic
    p = (1 - shift) * p + shift * (np.arange(len(WORDS)) < 6) / 6
    return [" ".join(rng.choice(WORDS, 20, p=p / p.sum())) for _ in range(draws)]


def drawn(rng: np.random.Generator, prompts: int, own: int, base: int, shift: float = 0.0):
    sides: tuple[dict, dict] = {}, {}
    for i in range(prompts):
        topic = rng.dirichlet(np.full(len(WORDS), 0.2))
        for side, n, s in zip(sides, (own, base), (shift, 0.0), strict=True):
            side[f"prompt {i}"] = texts(rng, n, topic, s)
    return sides


def test_a_pair_is_ranked_or_tied() -> None:
    assert ranked_higher(np.array([2.0, 1.0]), np.array([1.0, 0.0])) == 0.875
    assert math.isnan(ranked_higher(np.array([]), np.array([1.0])))


def test_identical_texts_cannot_be_told_apart() -> None:
    own, _ = drawn(np.random.default_rng(0), 6, 2, 2)
    assert auc_by_prompt(own, own) == [0.5] * 6


def test_different_texts_are_told_apart_whichever_side_they_stand_on() -> None:
    own, base = drawn(np.random.default_rng(1), 12, 3, 4, shift=0.5)
    there, back = (np.mean(auc_by_prompt(*sides)) for sides in ((own, base), (base, own)))
    assert min(there, back) > 0.8


def test_one_prompt_says_nothing() -> None:
    own, base = drawn(np.random.default_rng(2), 1, 2, 2)
    assert auc_by_prompt(own, base) == []
    assert evals.scores({"text_auc": []}, {}, resamples=20)["text_auc"].n == 0


@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_the_interval_holds_the_truth(shift: float) -> None:
    """Of equal texts 0.5, else the mean over all simulations, in as many as 95% intervals should, to chance."""
    rng, runs = np.random.default_rng(3), 50
    found = [auc_by_prompt(*drawn(rng, 12, 2, 2, shift)) for _ in range(runs)]
    truth = 0.5 if shift == 0 else float(np.mean(found))
    means = np.mean(found, axis=1)
    assert abs(means.mean() - truth) < 4 * means.std() / math.sqrt(runs)
    scores = [evals.scores({"text_auc": f}, {}, resamples=200)["text_auc"] for f in found]
    covered = sum(s.lo <= truth <= s.hi for s in scores)
    assert covered >= binom.ppf(0.001, runs, 0.95)
