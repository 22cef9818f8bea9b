"""Costs on paper: the page shows what the script prints, shapes are counted as models are, and the queue keeps its hours."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, Qwen3Config

ROOT = Path(__file__).parents[1]


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import scale

    return scale


@pytest.fixture
def queueing(scale):
    return scale.queueing


def test_the_page_shows_what_the_script_prints(scale):
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    found = scale.tables(scale.arguments([]))
    assert [heading for heading, table in found.items() if table + "\n" not in page] == []
    assert page.count("\n| --- ") == len(found), "and no other table"


def test_a_shape_is_counted_as_a_model_of_that_shape_is(scale):
    config = Qwen3Config(
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=96,
        vocab_size=200,
        tie_word_embeddings=True,
    )
    model = AutoModelForCausalLM.from_config(config)
    shape = scale.Shape("tiny", 3, 64, 4, 2, 16, 96, 200, tied=True)
    ours, theirs = shape.counted, scale.Counted.of(model.bfloat16())
    assert ours == theirs
    assert shape.parameters == sum(p.numel() for p in model.parameters()) - 64, "all but the last norm"
    from steer_heal_love.heal.lora import fresh

    adapter = fresh(model, rank=2, alpha=4.0, share=(0.0, 1.0), seed=0)
    assert shape.lora(2, 3) == sum(a.numel() + b.numel() for a, b in adapter.factors.values())


def test_the_floors_are_those_that_were_counted_on_the_model(scale):
    found = scale.rooms()
    for name in ("extract", "generate", "filter", "heal"):
        assert found[name] == pytest.approx(scale.PUBLISHED[name], rel=0.05), name


def test_work_grows_with_rounds_and_text_and_once_is_once(scale):
    from dataclasses import replace

    cfg = scale.presets.preset("gpu")
    terms = scale.Counter(scale.SHAPES[0], cfg).run()
    one, three = (scale.total(terms, n) for n in (1, 3))
    each = sum(t.tokens for t in terms if not t.once)
    assert three.tokens - one.tokens == pytest.approx(2 * each)
    longer = replace(cfg, generate=replace(cfg.generate, max_new_tokens=1024))
    assert scale.total(scale.Counter(scale.SHAPES[0], longer).run(), 1).work.flops > one.work.flops
    assert [s.gpus for s in scale.SHAPES] == [1, 2, 4]


def test_one_worker_without_failures_takes_the_sum_of_the_cells_and_their_starts(queueing):
    cells = [[10.0, 20.0], [30.0]]
    found = queueing.night(
        cells, workers=1, failures_per_hour=0.0, start=5.0, resumes=True, rng=random.Random(0)
    )
    assert found.hours * 3600 == pytest.approx(70.0) and found.failures == 0
    assert found.lost == pytest.approx(10 / 70)
    two = queueing.night(
        cells, workers=2, failures_per_hour=0.0, start=5.0, resumes=True, rng=random.Random(0)
    )
    assert two.hours * 3600 == pytest.approx(35.0)


def test_failures_cost_hours_and_resuming_loses_less(queueing):
    assert [queueing.survived([10.0, 20.0, 30.0], 1, s) for s in (-3, 19, 20, 49, 50)] == [1, 1, 2, 2, 3]
    steps = [(60.0, queueing.Room((0.9, 1.0, 1.3)))] * 20
    how = {"workers": 4, "failures_per_hour": 3.0, "start": 10.0}
    kept, kept_lost = queueing.simulated(steps, 12, 60, resumes=True, **how)
    again, again_lost = queueing.simulated(steps, 12, 60, resumes=False, **how)
    never, _ = queueing.simulated(steps, 12, 60, resumes=True, **(how | {"failures_per_hour": 0.0}))
    assert never.mean() < kept.mean() < again.mean() and kept_lost.mean() < again_lost.mean() / 2
    assert (queueing.simulated(steps, 12, 60, resumes=True, **how)[0] == kept).all(), "a seed is a night"
