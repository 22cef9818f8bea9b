"""The published evaluation, by a stand-in of the package's shape: called as it wants, read as it answers."""

from __future__ import annotations

import math
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from steer_heal_love import evals
from steer_heal_love.config import EvalConfig
from steer_heal_love.evals.tinymfv import mapped
from steer_heal_love.ground.errors import UserError
from steer_heal_love.nouns import FOUNDATIONS

SHORT = ("care", "fairness", "loyalty", "authority", "sanctity", "liberty", "social")


class Frame:
    """Columns by name, as much of a data frame as is read."""

    def __init__(self, columns: dict[str, list[Any]]):
        self.columns = columns

    def __getitem__(self, name: str) -> list[Any]:
        return self.columns[name]


def result(**changes: Any) -> dict[str, Any]:
    p = [[0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], [0.05, 0.05, 0.05, 0.5, 0.05, 0.05, 0.25]]
    found = {
        "profile": Frame(
            {
                "foundation": list(SHORT),
                "human": [0.3, *[0.1] * 5, 0.2],
                "model": [0.1 * i for i in range(7)],
                "model_T": [1 / 7] * 7,
            }
        ),
        "top1_acc": 0.4,
        "informedness": 0.3,
        "mean_pmass_allowed": 0.9,
        "frac_unscorable": 0.05,
        "mean_nll_prefill": 1.5,
        "per_row": [
            {"id": "b", "condition": "other_violate", "p": p[1], "score": [math.log(x) for x in p[1]]},
            {"id": "a", "condition": "other_violate", "p": p[0], "score": [math.log(x) for x in p[0]]},
        ],
    }
    return {k: v for k, v in (found | changes).items() if v is not None}


@pytest.fixture
def install(monkeypatch):
    """Put a stand-in under one name, hide the other, and record how it is called."""

    def make(name: str, found: dict[str, Any]) -> list[SimpleNamespace]:
        calls: list[SimpleNamespace] = []

        def evaluate(
            model,
            tokenizer,
            name="classic",
            n_vignettes=None,
            conditions=("other_violate",),
            max_think_tokens=64,
            batch_size=8,
            device=None,
            return_per_row=True,
        ):
            calls.append(SimpleNamespace(**locals()))
            return found

        for known in ("moralmaps", "tinymfv"):
            monkeypatch.setitem(sys.modules, known, None)
        module = ModuleType(name)
        module.evaluate = evaluate
        monkeypatch.setitem(sys.modules, name, module)
        return calls

    return make


@pytest.mark.parametrize("name", ["moralmaps", "tinymfv"])
@pytest.mark.parametrize(("view", "condition"), [("see", "other_violate"), ("you", "self_violate")])
def test_it_is_run_under_either_name_on_the_model_under_test(install, tiny, persona, name, view, condition):
    calls = install(name, result())
    config = EvalConfig(
        instruments=("tinymfv",), vignette_view=view, resamples=20, think_tokens=128 if view == "you" else 0
    )
    evals.ready(config)
    subject = evals.Subject(tiny.model, tiny.tok, persona, config, [])
    items = evals.collect_items(subject, evals.measure(subject))
    (call,) = calls
    assert call.model is tiny.model and call.tokenizer is tiny.tok
    assert (call.name, call.n_vignettes, call.conditions) == ("classic", None, (condition,))
    assert (call.max_think_tokens, call.return_per_row) == (128 if view == "you" else 64, True)
    scores = evals.scores(items, items, resamples=20)
    assert scores["tinymfv.Care"].mean == 0 and scores["tinymfv.Care"].n == 2
    assert scores["tinymfv_top1"].mean == pytest.approx(0.4)


def test_the_result_is_read_by_vignette_and_as_a_whole():
    items = mapped(result())
    a, b = (math.log(0.4 / 0.1), math.log(0.5 / 0.05))
    assert items["tinymfv.Care"][0] == pytest.approx(a * 6 / 7)
    assert items["tinymfv.Fairness"][0] == pytest.approx(-a / 7)
    assert items["tinymfv.Authority"][1] - items["tinymfv.Care"][1] == pytest.approx(b)
    assert items["tinymfv_human.Care"] == [0.3] and items["tinymfv_human.SocialNorms"] == [0.2]
    assert items["tinymfv_profile_T.Liberty"] == pytest.approx([1 / 7])
    assert [items[f"tinymfv_profile.{f}"] for f in FOUNDATIONS] == [[0.1 * i] for i in range(7)]
    assert items["tinymfv_p_ans_any"] == [0.9] and items["tinymfv_unscorable"] == [0.05]
    assert items["tinymfv_nll_prefill"] == [1.5]


def test_the_older_name_of_the_prefill_is_read_and_what_is_missing_is_undefined():
    items = mapped(result(mean_nll_prefill=None, mean_nll_json=2.5, frac_unscorable=None))
    assert items["tinymfv_nll_prefill"] == [2.5]
    assert math.isnan(items["tinymfv_unscorable"][0])


def test_a_row_without_an_answer_is_undefined_and_not_counted():
    rows = result()["per_row"]
    rows[0] |= {"p": [math.nan] * 7}
    score = evals.scores(mapped(result(per_row=rows)), mapped(result()), resamples=20)["tinymfv.Care"]
    assert score.n == 1 and score.mean == 0


def test_without_the_package_it_says_how_to_get_it(install):
    install("other", {})
    with pytest.raises(UserError, match="pip install git"):
        evals.ready(EvalConfig(instruments=("tinymfv",)))
    evals.ready(EvalConfig())
