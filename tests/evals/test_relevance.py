"""How much a prompt tells the base about the model's own answer."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from steer_heal_love import evals
from steer_heal_love.config import EvalConfig
from steer_heal_love.evals import relevance
from steer_heal_love.ground.chat import prompt_ids
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.scoring import token_nll
from steer_heal_love.nouns import Tokens

CONFIG = EvalConfig(instruments=("samples", "relevance"), sample_prompts=3, sample_tokens=6, resamples=50)


@pytest.fixture
def subject(tiny, persona) -> evals.Subject:
    return evals.Subject(tiny.model, tiny.tok, persona, CONFIG, [])


def test_every_prompt_is_set_against_another_of_its_kind() -> None:
    mixed, asked = ["q1", "n1", "q2", "n2", "q3", "n3"], {"q1", "q2", "q3"}
    assert relevance.others(mixed, asked) == ["q2", "n2", "q3", "n3", "q1", "n1"]
    assert relevance.others(mixed, asked, 1) == ["q3", "n3", "q1", "n1", "q2", "n2"]
    assert relevance.others(mixed, asked, 2) == relevance.others(mixed, asked)
    for draw in (0, 1):
        assert relevance.others(["q1", "n1", "n2"], {"q1"}, draw) == [None, "n2", "n1"]


def test_it_is_the_mean_over_draws_of_two_readings_made_one_by_one(subject) -> None:
    found = evals.evaluate(replace(subject, draws=2), "base")
    prompts, asked = [m["prompt"] for m in found.samples], {p.question for p in subject.probes}
    drawn = {0: found.samples, 1: found.redrawn}

    def nll(prompt: str, ids: list[int]) -> float:
        read = token_nll(subject.model, [Tokens(prompt_ids(subject.tok, prompt), tuple(ids))])
        return read[0].mean().item()

    def told_by(draw: int) -> list[float]:
        """This draw's relevance by prompt."""
        other = relevance.others(prompts, asked, draw)
        return [
            nll(o, m["ids"]) - nll(m["prompt"], m["ids"]) for o, m in zip(other, drawn[draw], strict=True)
        ]

    each = [told_by(0), told_by(1)]
    wanted = [(a + b) / 2 for a, b in zip(*each, strict=True)]
    assert found.items["relevance"] == pytest.approx(wanted, abs=1e-4)
    assert len(found.items["relevance.probes"]) == len(found.items["relevance.neutral"]) == 3
    assert max(abs(a - b) for a, b in zip(*each, strict=True)) > 1e-3


def test_what_samples_read_of_the_text_is_not_read_again(subject, monkeypatch) -> None:
    read: list[int] = []
    monkeypatch.setattr(
        relevance, "token_nll", lambda *a, **k: [read.append(1) or t for t in token_nll(*a, **k)]
    )
    found = evals.evaluate(replace(subject, draws=3), "base")
    assert len(read) == 3 * len(found.samples)


def test_a_prompt_without_another_of_its_kind_is_undefined(subject) -> None:
    made = evals.evaluate(subject, "base").samples
    few = [made[0], *made[3:]]
    found = relevance.read_relevance(replace(subject, drawn=few, items={"own_nll": [0.0] * len(few)}), None)
    assert math.isnan(found["relevance"][0])
    assert all(math.isfinite(v) for v in found["relevance"][1:])


def test_it_asks_for_the_samples_that_it_reads() -> None:
    with pytest.raises(UserError, match="samples"):
        evals.ready(replace(CONFIG, instruments=("relevance",)))
