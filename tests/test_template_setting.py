"""`--template` from the settings to the tokenizer, the manifest, the vector and a run that is opened again."""

from __future__ import annotations

import pytest

from steer_heal_love import session
from steer_heal_love.config import RunConfig
from steer_heal_love.ground import records
from steer_heal_love.ground.chat import template_hash
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.folder import RunFolder
from steer_heal_love.ground.progress import silent
from steer_heal_love.vector import Vector
from tiny_model import TURNS, build_model, build_tokenizer


@pytest.fixture
def base(tmp_path):
    """A base model's folder: no chat template."""
    tok = build_tokenizer(None)
    build_model(len(tok), tok.eos_token_id).save_pretrained(tmp_path / "base")
    tok.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def settings(base, template):
    return RunConfig(model=str(base), template=template, device="cpu", dtype="float32")


def test_a_base_model_needs_a_template_and_takes_one(base):
    with pytest.raises(UserError, match="--template plain"):
        session.loaded(settings(base, ""))
    _, tok = session.loaded(settings(base, "plain"))
    assert "Assistant:" in tok.chat_template


def test_a_run_keeps_its_template_and_says_which(base, tmp_path, persona):
    file = tmp_path / "mine.jinja"
    file.write_text(TURNS)
    cfg = settings(base, str(file))
    model, tok = session.loaded(cfg)
    run = session.begun(cfg, model, tok, RunFolder.create(tmp_path, "run"), silent)
    file.unlink()
    again = session.opened(run.folder.path, silent)
    manifest = records.read_json(run.folder.path / "manifest.json")
    assert manifest["chat_template_hash"] == template_hash(tok) == template_hash(again.tok)
    vector = Vector.train(again.model, again.tok, persona, contexts=["Who?", "Where?"])
    assert vector.meta["template"] == template_hash(tok)


def test_what_was_odd_on_loading_is_in_the_runs_log(base, tmp_path):
    file = tmp_path / "clock.jinja"
    file.write_text("{{ strftime_now('%d %b %Y') }}" + TURNS)
    cfg = settings(base, str(file))
    run = session.begun(cfg, *session.loaded(cfg), RunFolder.create(tmp_path, "run"), silent)
    assert "pinned to 1 January 2025" in (run.folder.path / "events.jsonl").read_text()


def test_a_number_type_out_of_the_list_is_refused_with_the_settings():
    with pytest.raises(UserError, match="dtype: auto or float32 or bfloat16 or float16, found 'int4'"):
        cfg = RunConfig()
        object.__setattr__(cfg, "dtype", "int4")  # past the types that are checked in tests
        cfg.check()
