"""One answer to whether a base and a run or adapter belong together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from steer_heal_love import bake
from steer_heal_love.ground import identity, models
from steer_heal_love.ground.chat import template_hash
from steer_heal_love.ground.errors import UserError
from tiny_model import build_model


@pytest.fixture
def of(tok):
    """The base that a model is."""
    return lambda model: identity.Base(
        "tiny", models.fingerprint(model), str(model.dtype), template_hash(tok)
    )


@pytest.fixture
def told():
    return []


def checked(model, tok, was, told):
    identity.check(model, tok, was, where=Path("run"), name="tiny", warn=told.append)


def test_the_same_weights_pass_and_others_are_refused(tok, model, of, told):
    checked(model, tok, of(model), told)
    other = build_model(len(tok), tok.eos_token_id, seed=77)
    with pytest.raises(UserError, match="was run on weights"):
        checked(other, tok, of(model), told)
    assert told == []


def test_another_template_is_said(tok, tok_drops, model, of, told):
    checked(model, tok_drops, of(model), told)
    assert len(told) == 1 and "chat template" in told[0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_in_a_finer_type_are_compared_in_the_type_of_then(tok, of, told, dtype):
    coarse = of(build_model(len(tok), tok.eos_token_id).to(dtype))
    checked(build_model(len(tok), tok.eos_token_id), tok, coarse, told)
    with pytest.raises(UserError, match="was run on weights"):
        checked(build_model(len(tok), tok.eos_token_id, seed=77), tok, coarse, told)
    assert told == []


def test_parts_that_a_family_keeps_in_fp32_do_not_make_it_another_model(tok, of, told, tmp_path, monkeypatch):
    for name, seed in (("one", 0), ("two", 77)):
        build_model(len(tok), tok.eos_token_id, seed=seed).save_pretrained(tmp_path / name)
    family = type(build_model(len(tok), tok.eos_token_id))
    monkeypatch.setattr(family, "_keep_in_fp32_modules_strict", {"norm"}, raising=False)
    load = lambda name, dtype: family.from_pretrained(tmp_path / name, dtype=dtype)
    then = load("one", torch.bfloat16)
    assert {p.dtype for p in then.parameters()} == {torch.bfloat16, torch.float32}
    was = identity.Base("tiny", models.fingerprint(then), str(torch.bfloat16), template_hash(tok))
    checked(load("one", torch.float32), tok, was, told)
    with pytest.raises(UserError, match="was run on weights"):
        checked(load("two", torch.float32), tok, was, told)
    assert told == []


def test_weights_in_a_coarser_type_prove_nothing(tok, model, of, told):
    checked(build_model(len(tok), tok.eos_token_id).to(torch.bfloat16), tok, of(model), told)
    assert len(told) == 1 and "nothing says" in told[0]


def test_a_copied_adapter_says_itself_which_base_it_is_of(tok, model, random_adapter, of, told, tmp_path):
    bake.save_peft(random_adapter(model, 1), tmp_path, base_model="tiny", note=of(model).note())
    assert identity.of_adapter(tmp_path) == of(model)
    identity.check_adapter(model, tok, tmp_path, name="tiny", warn=told.append)
    other = build_model(len(tok), tok.eos_token_id, seed=77)
    with pytest.raises(UserError, match="was run on weights"):
        identity.check_adapter(other, tok, tmp_path, name="tiny", warn=told.append)


def test_an_adapter_in_a_run_is_checked_by_the_run_s_manifest(model, of, tmp_path):
    was = of(model)
    manifest = {
        "model": "tiny",
        "model_hash": was.weights,
        "dtype": was.dtype,
        "chat_template_hash": was.template,
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "config.toml").write_text("")
    for place in ("adapter", "rounds/00/adapter"):
        (tmp_path / place).mkdir(parents=True)
        assert identity.of_adapter(tmp_path / place) == was


def test_a_foreign_adapter_is_compared_by_its_base_s_name(tok, model, random_adapter, told, tmp_path):
    bake.save_peft(random_adapter(model, 1), tmp_path, base_model="Someone/Tiny-Model")
    identity.check_adapter(model, tok, tmp_path, name="/models/tiny-model", warn=told.append)
    assert told == []
    identity.check_adapter(model, tok, tmp_path, name="another", warn=told.append)
    assert len(told) == 1 and "Someone/Tiny-Model" in told[0]


@pytest.mark.parametrize(
    "note",
    [
        "",
        "[]",
        "{}",
        '{"format": 2}',
        '{"format": 1, "base_hash": 3}',
        '{"format": 1, "base_hsh": "a"}',
        "{" * 9,
    ],
)
def test_a_damaged_note_is_a_user_error(tmp_path, note):
    (tmp_path / identity.NOTE).write_text(note)
    with pytest.raises(UserError, match=identity.NOTE):
        identity.of_adapter(tmp_path)
