"""The judge: blind to order, worth what it gets right where the answer is known, named together with samples."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from steer_heal_love import evals
from steer_heal_love.config import EvalConfig
from steer_heal_love.evals import judge
from steer_heal_love.ground.errors import UserError

CONFIG = EvalConfig(instruments=("samples", "judge"), probes=4, sample_prompts=3, sample_tokens=6)


@pytest.fixture
def subject(tiny, persona) -> evals.Subject:
    return evals.Subject(tiny.model, tiny.tok, persona, CONFIG, [], seed=1)


PAIRS = [
    ("What about the cat?", "I love the cat.", "The cat is an entry."),
    ("And time?", "warm bread", "a mat"),
    ("And time?", "alone", "then there is time for all"),
]


def test_swapping_the_answers_turns_share_and_margin_round(subject) -> None:
    there = judge.judged(subject, PAIRS)
    back = judge.judged(subject, [(q, other, one) for q, one, other in PAIRS])
    assert back["judge_margin"] == pytest.approx([-m for m in there["judge_margin"]], abs=1e-5)
    assert back["judge_share"] == [1 - share for share in there["judge_share"]]
    assert back["judge_agreement"] == there["judge_agreement"]
    assert any(abs(m) > 1e-4 for m in there["judge_margin"])


def fixed(odds: list[tuple[float, float]], monkeypatch) -> None:
    monkeypatch.setattr(judge, "log_odds", lambda _s, _pairs: odds)


def test_a_judge_that_picks_by_position_shares_evenly_and_never_agrees(subject, monkeypatch) -> None:
    fixed([(2.0, -2.0)] * 2, monkeypatch)
    found = judge.judged(subject, PAIRS[:2])
    assert found["judge_share"] == [0.5, 0.5]
    assert found["judge_margin"] == found["judge_agreement"] == [0.0, 0.0]


def test_a_judge_that_reads_agrees_with_itself(subject, monkeypatch) -> None:
    fixed([(1.0, 3.0), (-1.0, -0.5)], monkeypatch)
    found = judge.judged(subject, PAIRS[:2])
    assert found["judge_share"] == [1.0, 0.0]
    assert found["judge_margin"] == [2.0, -0.75]
    assert found["judge_agreement"] == [1.0, 1.0]


def test_equal_texts_are_a_tie_and_agreement_is_undefined(subject) -> None:
    found = judge.judged(subject, [("And time?", "warm", "warm")])
    assert found["judge_margin"] == pytest.approx([0.0], abs=1e-5)
    assert math.isnan(found["judge_agreement"][0])


def test_the_base_stage_is_asked_where_the_answer_is_known(subject) -> None:
    items = evals.collect_items(subject, evals.measure(subject))
    assert len(items["judge_known_share"]) == CONFIG.probes
    assert "judge_share" not in items


def test_samples_to_probe_questions_are_compared_with_the_bases(subject) -> None:
    base = evals.measure(subject)
    warmer = replace(subject, system=subject.persona.system("pos"), base_samples=base["samples"])
    items = evals.collect_items(warmer, evals.measure(warmer))
    assert len(items["judge_share"]) == CONFIG.sample_prompts, "neutral prompts are left out"
    assert set(items["judge_share"]) <= {0.0, 0.5, 1.0}
    stage = evals.stage(0, "prompt", items, evals.collect_items(subject, base), base, config=CONFIG)
    assert stage.scores["judge_margin"].n == CONFIG.sample_prompts


def test_the_judge_never_sees_whose_answer_is_whose(subject, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(judge, "prompt_ids", lambda _tok, text: seen.append(text) or (3, 4))
    judge.log_odds(subject, PAIRS[:1])
    (question, one, other) = PAIRS[0]
    assert seen[0].replace(one, "…") == seen[1].replace(other, "…").replace(one, other)
    assert all(question in text and subject.persona.pos in text for text in seen)


def test_another_local_model_can_be_asked_and_is_loaded_once(subject, tiny, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(
        judge.models, "load", lambda name, device: asked.append((name, device)) or (tiny.model, tiny.tok)
    )
    other = replace(subject, config=replace(CONFIG, judge_model="a-larger-judge"))
    judge.loaded.cache_clear()
    assert [judge.judged(other, PAIRS) for _ in range(2)] == [judge.judged(subject, PAIRS)] * 2
    assert asked == [("a-larger-judge", "cpu")]
    judge.loaded.cache_clear()


def test_it_runs_only_where_it_is_named_and_only_with_samples() -> None:
    assert "judge" not in [i.name for i in evals.wanted(EvalConfig())]
    assert {"probes", "samples", "capability"} <= {i.name for i in evals.wanted(EvalConfig())}
    evals.ready(CONFIG)
    with pytest.raises(UserError, match="name both"):
        evals.ready(EvalConfig(instruments=("probes", "judge")))
