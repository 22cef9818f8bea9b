"""A run for every row of the relevance gate."""

from __future__ import annotations

import pytest

from steer_heal_love import gates
from steer_heal_love.gates import certificate, relevance
from steer_heal_love.ground.stats import bootstrap
from steer_heal_love.nouns import Stage

NOISE = [0.1 * (-1) ** i * (1 + i % 3) for i in range(48)]
CASES = {"kept": (1.2, 1.15), "unclear": (1.2, 0.96), "lost": (1.2, 0.6), "none": (0.0, 0.0)}
"""mean relevance of the base and of the healed model"""


def stage(name: str, mean: float, sign: int = 1) -> Stage:
    values = [mean + sign * e for e in NOISE]
    return Stage(
        -1 if name == "base" else 0,
        name,
        {"relevance": bootstrap(values, resamples=100)},
        {"relevance": values},
    )  # type: ignore[arg-type]


def judged(persona, base: float, healed: float):
    e = gates.Evidence(persona, [stage("base", base), stage("healed", healed, -1)], resamples=100)
    return next((g for g in gates.judge(e) if g.gate == "relevance"), None)


def test_every_row_has_a_run() -> None:
    assert set(CASES) == set(relevance.ROWS)


@pytest.mark.parametrize("outcome", CASES)
def test_a_run_built_for_a_row_selects_it(outcome: str, persona) -> None:
    found = judged(persona, *CASES[outcome])
    assert (found.outcome, found.verdict) == (outcome, relevance.ROWS[outcome].verdict)
    assert "n 48" in found.observed and "base" in found.observed


def test_a_run_without_the_instrument_has_no_such_gate(persona) -> None:
    bare = [Stage(-1, "base", {}, {}), Stage(0, "healed", {}, {})]
    assert not any(g.gate == "relevance" for g in gates.judge(gates.Evidence(persona, bare, resamples=100)))


def test_one_kind_that_is_lost_is_enough(persona) -> None:
    def both(name: str, probes: float, neutral: float, sign: int) -> Stage:
        kinds = {"relevance.probes": probes, "relevance.neutral": neutral}
        items = {k: [mean + sign * e for e in NOISE] for k, mean in kinds.items()}
        items["relevance"] = [*items["relevance.probes"], *items["relevance.neutral"]]
        scores = {k: bootstrap(v, resamples=100) for k, v in items.items()}
        return Stage(-1 if name == "base" else 0, name, scores, items)  # type: ignore[arg-type]

    for probes, neutral, outcome in ((1.15, 1.15, "kept"), (0.5, 1.15, "lost"), (1.15, 0.5, "lost")):
        stages = [both("base", 1.2, 1.2, 1), both("healed", probes, neutral, -1)]
        found = next(
            g for g in gates.judge(gates.Evidence(persona, stages, resamples=100)) if g.gate == "relevance"
        )
        assert found.outcome == outcome, found.observed


@pytest.mark.parametrize(
    ("base", "healed", "lost"), [(1.2, 0.3, True), (1.2, 0.9, False), (0.0, -0.5, False)]
)
def test_a_certificate_condemns_a_model_that_lost_half_of_its_relevance(persona, base, healed, lost) -> None:
    """Where the base's own is not above zero none can be lost; what was not measured is not shown."""
    kinds = ("relevance.probes", "relevance.neutral")
    stages = []
    for name, mean, sign in (("base", base, 1), ("healed", healed, -1)):
        values = [mean + sign * e for e in NOISE]
        stages.append(Stage(-1 if name == "base" else 0, name, {}, dict.fromkeys(kinds, values)))  # type: ignore[arg-type]
    found = certificate.certified(gates.Evidence(persona, stages, resamples=100))
    assert (found.outcome == "off_prompt") == lost and "relevance.probes beyond 50%" in found.observed
    if lost:
        assert certificate.KINDS[found.outcome] == "broken" and found.verdict == "fail"
    bare = [Stage(-1, "base", {}, {}), Stage(0, "healed", {}, {})]
    assert "relevance" not in certificate.certified(gates.Evidence(persona, bare, resamples=100)).observed
