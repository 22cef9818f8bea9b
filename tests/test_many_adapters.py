"""Adapters by row: each row is as with its adapter alone, with a cache and without, however the product is formed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from steer_heal_love.ground import reading
from steer_heal_love.ground.hooks import adapted

ROOT = Path(__file__).parents[1]
ROWS, ADAPTERS, TOKENS = 6, 3, 5


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import many_adapters

    return many_adapters


@pytest.fixture
def adapters(model, random_adapter):
    """Adapters that change what is said. The model's way of reading is tried before any is on, as on loading."""
    reading.way(model)
    return [random_adapter(model, seed, size=0.3) for seed in range(ADAPTERS)]


@pytest.mark.parametrize("form", ["masked", "grouped", "gathered"])
def test_rows_with_different_adapters_equal_each_adapter_alone(many, model, adapters, hooks, form):
    prompts = many.prompts_of(ROWS, model.config.vocab_size)
    work = lambda some: many.sampled(model, some, TOKENS)
    alone = [many.one_after_another(model, adapters, prompts, work, fold=fold) for fold in (True, False)]
    found = many.together(model, adapters, prompts, work, form)
    assert found == alone[0] == alone[1] and len(set(found)) == ROWS
    assert found != work(prompts), "the adapters say something else than the base"
    assert hooks(model) == 0


@pytest.mark.parametrize("form", ["masked", "grouped", "gathered"])
def test_cached_equals_uncached(many, model, adapters, form):
    prompts = many.prompts_of(ROWS, model.config.vocab_size)
    cached = many.together(model, adapters, prompts, lambda some: many.sampled(model, some, TOKENS), form)

    @torch.no_grad()
    def again(some):
        ids = torch.tensor(some)
        for _ in range(TOKENS):
            ids = torch.cat([ids, model(ids, use_cache=False).logits[:, -1].argmax(-1, keepdim=True)], 1)
        return [tuple(row) for row in ids[:, many.PROMPT :].tolist()]

    assert many.together(model, adapters, prompts, again, form) == cached


def test_a_reading_is_each_adapters_own(many, model, adapters):
    which = many.shared_out(ROWS, ADAPTERS)
    for form in many.FORMS.values():
        with many.by_row(model, adapters, which, form):
            found = many.forward(model, ROWS, TOKENS)
        for k, adapter in enumerate(adapters):
            with adapted(model, adapter.factors, adapter.scaling):
                assert torch.allclose(
                    found[which == k], many.forward(model, ROWS, TOKENS)[which == k], atol=1e-5
                )


def test_the_benchmark_measures_every_way(many, tok, tmp_path, capsys):
    tok.save_pretrained(tmp_path / "tok")
    argv = [
        "--shape",
        "tiny",
        "--tokenizer",
        str(tmp_path / "tok"),
        "--device",
        "cpu",
        "--rows",
        "6",
        "--adapters",
        "3",
    ]
    many.main([*argv, "--tokens", "3", "--repeats", "1", "--out", str(tmp_path / "out.json")])
    found = json.loads((tmp_path / "out.json").read_text())["measured"]
    assert {(r["work"], r["way"]) for r in found} == {
        (w, v) for w in ("sample", "read") for v in ("folded", "beside", *many.FORMS)
    }
    assert all(r["tokens_per_second"] > 0 and r["times_folded"] > 0 for r in found)
    with pytest.raises(SystemExit):
        many.main([*argv, "--rows", "5"])
