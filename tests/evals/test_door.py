"""Which instruments run, and what is checked before any model is loaded."""

from __future__ import annotations

import pytest

from steer_heal_love import evals
from steer_heal_love.config import EvalConfig
from steer_heal_love.ground.errors import UserError

OPTIONAL = {"forced_choice", "judge", "lm_eval", "tinymfv"}


def test_all_means_all_but_the_optional_ones():
    names = {i.name for i in evals.wanted(EvalConfig())}
    assert names == set(evals.instruments) - OPTIONAL
    assert evals.count(EvalConfig()) == len(names) + 1


def test_an_optional_one_runs_where_it_is_named():
    assert [i.name for i in evals.wanted(EvalConfig(instruments=("forced_choice",)))] == ["forced_choice"]


def test_an_unknown_name_is_told():
    with pytest.raises(UserError, match="forced_choice"):
        evals.ready(EvalConfig(instruments=("forced_choise",)))


@pytest.mark.parametrize("name", ["vignettes", "forced_choice"])
def test_a_bank_that_does_not_load_is_told_before_anything_runs(name, tmp_path):
    bank = tmp_path / "bank.jsonl"
    bank.write_text('{"id": 1, "foundation": "Care"}\nnope\n')
    with pytest.raises(UserError, match="2 mistakes"):
        evals.ready(EvalConfig(instruments=(name,), vignette_bank=str(bank)))
    evals.ready(EvalConfig(instruments=("probes",), vignette_bank=str(bank)))
