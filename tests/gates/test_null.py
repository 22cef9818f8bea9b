"""A run for every row of the null gate; a run from before the nulls has none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from steer_heal_love import gates
from steer_heal_love.gates import null
from steer_heal_love.ground.stats import bootstrap
from steer_heal_love.nouns import Score, Stage

NOISE = [0.02 * (-1) ** i * (1 + i % 3) for i in range(48)]


def stage(name, trait, null_trait=None, halves=None):
    """A stage whose items are noise about these means."""
    items = {"trait": trait, "neutral_kl": 0.04 * (name != "base")}
    if null_trait is not None:
        items |= {"null_trait": null_trait, "above_null": trait - null_trait}
    if halves:
        items |= dict(zip(("nll_pos", "nll_neg"), halves, strict=True))
    items = {n: [v + e for e in NOISE] for n, v in items.items()}
    scores = {n: bootstrap(v, resamples=100) for n, v in items.items()}
    return Stage(-1 if name == "base" else 0, name, scores, items)


def run(persona, healed, **base):
    return gates.Evidence(persona, [stage("base", 0.0, halves=(2.0, 2.0), **base), healed], resamples=100)


CASES = {
    "above": stage("healed", 0.3, 0.1, (1.95, 2.25)),
    "unmeasured_halves": stage("healed", 0.3, 0.1),
    "not_told_apart": stage("healed", 0.1, 0.1, (1.95, 2.05)),
    "below": stage("healed", 0.1, 0.3, (1.95, 2.05)),
}


def judged(e):
    return next((g for g in gates.judge(e) if g.gate == "null"), None)


def test_every_row_has_a_run():
    assert set(CASES) == set(null.ROWS)


@pytest.mark.parametrize("outcome", CASES)
def test_a_run_built_for_a_row_selects_it(outcome, persona):
    found = judged(run(persona, CASES[outcome]))
    assert (found.outcome, found.verdict) == (outcome, null.ROWS[outcome].verdict)
    assert "nan" not in found.observed and "n 48" in found.observed


def test_both_halves_are_told_with_their_signs(persona):
    observed = judged(run(persona, CASES["above"])).observed
    assert "trait_pos +0.0" in observed and "trait_neg +0.2" in observed, observed


def test_a_run_without_nulls_and_one_past_them_has_no_verdict(persona):
    assert judged(run(persona, stage("healed", 0.3))) is None
    h = CASES["above"]
    past = replace(h, scores=h.scores | {"above_null": Score.undefined()})
    assert judged(run(persona, past)) is None
