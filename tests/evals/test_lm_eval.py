"""The adapter to lm-evaluation-harness, against a stand-in of its shape that scores with the model it is given."""

from __future__ import annotations

import json
import sys
from functools import partial
from types import ModuleType

import pytest
import torch

from steer_heal_love import evals
from steer_heal_love.config import EvalConfig, RunConfig
from steer_heal_love.evals.lm_eval import items_of
from steer_heal_love.ground.chat import prompt_ids
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.hooks import adapted

CONFIG = EvalConfig(instruments=("lm_eval",), lm_eval_tasks=("copying", "longest"), lm_eval_limit=4)


@pytest.fixture
def harness(monkeypatch) -> list[dict]:
    """`lm_eval` and `lm_eval.models.huggingface`; the calls that `simple_evaluate` got."""
    calls: list[dict] = []

    class HFLM:
        def __init__(self, pretrained, *, tokenizer, batch_size):
            self.model, self.tokenizer, self.batch_size = pretrained, tokenizer, batch_size

    def simple_evaluate(model, *, tasks, **how):
        calls.append({"model": model, "tasks": tasks, **how})
        ids = torch.arange(3, 3 + 8 * how["limit"]).reshape(how["limit"], 8)
        with torch.no_grad():
            surest = model.model(ids).logits.log_softmax(-1).amax((1, 2)).tolist()
        rows = [
            {
                "doc_id": i,
                "filter": "none",
                "metrics": ["acc", "logprob"],
                "acc": surest[i] > -1.0,
                "logprob": surest[i],
            }
            for i in range(how["limit"])
        ]
        return {
            "results": {t: {"alias": t, "acc,none": 0.5, "acc_stderr,none": 0.1} for t in tasks},
            "samples": dict.fromkeys(tasks, rows[::-1]),
        }

    package, inner, wrappers = (
        ModuleType(name) for name in ("lm_eval", "lm_eval.models", "lm_eval.models.huggingface")
    )
    package.simple_evaluate, wrappers.HFLM = simple_evaluate, HFLM
    for module in (package, inner, wrappers):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return calls


def test_tasks_become_items_that_pair_with_base(harness, tiny, persona, random_adapter) -> None:
    subject = evals.Subject(tiny.model, tiny.tok, persona, CONFIG, [], batch_tokens=1024)
    base = evals.collect_items(subject, evals.measure(subject))
    change = random_adapter(tiny.model, 1, size=0.5)
    with adapted(tiny.model, change.factors, change.scaling):
        found = evals.measure(subject)
    stage = evals.stage(0, "healed", evals.collect_items(subject, found), base, found, config=CONFIG)
    for task in CONFIG.lm_eval_tasks:
        name = f"lm_eval.{task}.logprob"
        assert stage.scores[name].n == CONFIG.lm_eval_limit
        shift = [a - b for a, b in zip(stage.items[name], base[name], strict=True)]
        assert stage.scores[f"{name}_shift"].mean == pytest.approx(sum(shift) / len(shift)) != 0.0
        assert set(stage.items[f"lm_eval.{task}.acc"]) <= {0.0, 1.0}
    first = harness[0]
    assert first["model"].model is tiny.model and first["model"].tokenizer is tiny.tok
    assert first["tasks"] == ["copying", "longest"] and first["limit"] == CONFIG.lm_eval_limit
    assert first["apply_chat_template"] and first["system_instruction"] == subject.system


def test_documents_are_put_in_order_and_filters_kept_apart() -> None:
    rows = [
        {"doc_id": 1, "filter": "strict", "metrics": ["em"], "em": 0},
        {"doc_id": 0, "filter": "strict", "metrics": ["em"], "em": 1},
        {"doc_id": 0, "filter": "loose", "metrics": ["em", "pair"], "em": 0.5, "pair": (1, 2)},
    ]
    assert items_of({"samples": {"sums": rows}}) == {
        "lm_eval.sums.em.strict": [1.0, 0.0],
        "lm_eval.sums.em.loose": [0.5],
    }


def test_a_task_without_numbers_is_a_user_error() -> None:
    rows = [{"doc_id": 0, "filter": "none", "metrics": ["word_perplexity"], "word_perplexity": (-3.0, 4)}]
    with pytest.raises(UserError, match="'wiki' gives no number per document"):
        items_of({"samples": {"wiki": rows}})


def test_what_is_missing_is_said_before_anything_runs(harness, monkeypatch) -> None:
    evals.ready(CONFIG)
    with pytest.raises(UserError, match="needs tasks"):
        evals.ready(EvalConfig(instruments=("lm_eval",)))
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(UserError, match=r"pip install 'steer-heal-love\[lm-eval\]'"):
        evals.ready(CONFIG)
    assert harness == []


def test_shl_eval_runs_the_tasks_besides_the_instruments(harness, tok, tiny, monkeypatch, tmp_path) -> None:
    from steer_heal_love import cli, presets
    from steer_heal_love.ground import records

    monkeypatch.setattr("steer_heal_love.ground.models.load", lambda _name, **_: (tiny.model, tiny.tok))
    small = RunConfig(
        eval=EvalConfig(instruments=("probes",), neutral_prompts=1, sample_tokens=4, lm_eval_limit=3)
    )
    monkeypatch.setattr(presets, "fitting", lambda _device, _model: small)
    out = tmp_path / "scores.json"
    cli.main(["eval", "--instrument", "probes", "--lm-eval", "copying", "--out", str(out)])
    scores = records.read_json(out)["scores"]
    assert scores["lm_eval.copying.acc"]["n"] == 3
    assert scores["lm_eval.copying.logprob_shift"]["mean"] == 0.0
    assert "trait_shift" in scores


TASK = """
task: cats
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: label
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


def test_the_real_harness_scores_the_model_that_it_is_handed(tiny, persona, tmp_path, monkeypatch) -> None:
    """Which of two words is likelier after the rendered prompt, by the model's own logits, is what the package finds."""
    real = pytest.importorskip(
        "lm_eval", reason="the extra `lm-eval` is not installed: pip install 'steer-heal-love[lm-eval]'"
    )
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    asked, choices = [f"Where is cat {i}?" for i in range(4)], ["mat", "tree"]
    rows = [{"question": q, "choices": choices, "label": i % 2} for i, q in enumerate(asked)]
    (tmp_path / "cats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "cats.yaml").write_text(TASK.format(data=tmp_path / "cats.jsonl"))
    whole, tasks = real.simple_evaluate, real.tasks.TaskManager(include_path=str(tmp_path))
    monkeypatch.setattr(real, "simple_evaluate", partial(whole, task_manager=tasks))
    config = EvalConfig(instruments=("lm_eval",), lm_eval_tasks=("cats",))
    subject = evals.Subject(tiny.model, tiny.tok, persona, config, [], batch_tokens=1024)
    found = evals.collect_items(subject, evals.measure(subject))["lm_eval.cats.acc"]
    expected = []
    for row in rows:
        prompt = list(prompt_ids(tiny.tok, row["question"], subject.system))
        said = [tiny.tok(c, add_special_tokens=False)["input_ids"] for c in choices]
        scores = [logp(tiny.model, prompt, ids) for ids in said]
        expected.append(float(scores[row["label"]] == max(scores)))
    assert found == expected


@torch.no_grad()
def logp(model, prompt: list[int], answer: list[int]) -> float:
    logits = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    return sum(logits[len(prompt) - 1 + i, token].item() for i, token in enumerate(answer))
