"""The area under a curve and its interval, on texts whose true area is known; texts of one prompt are alike."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest


@pytest.fixture
def separation(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import separation

    return separation


@pytest.mark.parametrize(
    "prompts, each, gap, luck", [(100, 4, 2.5, 0.7), (24, 17, 2.5, 0.7), (20, 6, 1.5, 0.7)]
)
def test_the_areas_interval_covers(separation, prompts, each, gap, luck):
    """A text's value is its prompt's luck plus its own, broken ones `gap` above."""
    g, hits, runs = np.random.default_rng(prompts), 0, 300
    truth = NormalDist().cdf(gap / math.sqrt(2 * (1 + luck**2)))
    of = np.repeat(np.arange(prompts), each)
    for i in range(runs):
        broken = g.random(len(of)) < 0.2 + 0.3 * g.random(prompts)[of]
        values = g.normal(size=len(of)) + luck * g.normal(size=prompts)[of] + gap * broken
        texts = separation.Labelled(np.where(broken, "soup", "coherent"), of)
        low, high = separation.interval(values, texts, resamples=200, seed=i)
        assert low <= separation.area(values, broken) <= high
        hits += low <= truth <= high
    assert hits / runs >= 0.93


def test_an_area_without_a_mistake_has_an_interval_below_one(separation):
    texts = separation.Labelled(np.array(["soup", "coherent"] * 20), np.repeat(np.arange(20), 2))
    low, high = separation.interval(texts.broken.astype(float), texts)
    assert 0.9 < low < high == separation.area(texts.broken.astype(float), texts.broken) == 1
