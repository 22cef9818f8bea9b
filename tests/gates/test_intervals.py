"""Intervals that gates make themselves hold the truth as often as they claim, by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from steer_heal_love.gates import Evidence, relevance
from steer_heal_love.nouns import Stage

RUNS, RESAMPLES = 200, 200
LEAST = binom.ppf(0.001, RUNS, 0.95)
"""what 95% intervals hold at least, to chance"""


def evidence(persona, base: dict, *others: dict) -> tuple[Evidence, list[Stage]]:
    items = [{n: np.asarray(v).tolist() for n, v in x.items()} for x in (base, *others)]
    stages = [Stage(i - 1, "healed" if i else "base", {}, x) for i, x in enumerate(items)]
    return Evidence(persona, stages, resamples=RESAMPLES), stages[1:]


@pytest.mark.parametrize("luck", [0.1, 0.5])
def test_healed_above_steering_at_the_same_drift(persona, luck):
    """Probes and neutral texts are more or less sensitive in both models; `luck` is what each model has of its own."""
    draw, held = np.random.default_rng(1), 0
    truth = 0.3 - math.sqrt(0.02 / 0.09) * 0.5
    for _ in range(RUNS):
        probe, text = draw.normal(0, 0.5, 48), draw.exponential(1, 96)
        own = lambda n: 1 + luck * (draw.exponential(1, n) - 1)
        healed, steered = (
            {"trait": size * (1 + probe) + 0.1 * draw.normal(size=48), "neutral_kl": kl * text * own(96)}
            for size, kl in ((0.3, 0.02), (0.5, 0.09))
        )
        e, (h, s) = evidence(persona, {"trait": np.zeros(48)}, healed, steered)
        found = e.above_scaled(h, s)
        held += found.lo <= truth <= found.hi
    assert held >= LEAST


def test_what_is_left_of_relevance_where_prompts_stand_in_for_each_other(persona):
    """A prompt is the other one of its neighbour: what it makes likelier of any text is added once and taken away once."""
    draw, held = np.random.default_rng(2), 0
    for _ in range(RUNS):
        easy, own = draw.normal(0, 0.5, 24), draw.gamma(4, 0.25, 24)
        ring = easy - np.roll(easy, -1)
        base = own + ring + 0.3 * draw.normal(size=24)
        healed = 0.6 * own + ring + 0.3 * draw.normal(size=24)
        e, (h,) = evidence(persona, {"relevance": base}, {"relevance": healed})
        found = relevance.left_of(e, h, e.stages[0], "relevance", comparisons=1)
        held += found.lo <= 0.6 - relevance.KEPT <= found.hi
    assert held >= LEAST
