"""What a run folder from other hands may make this tool do: nothing that its user did not ask for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steer_heal_love import alone, bake, cli, loop, manifest, presets, session
from steer_heal_love.ground import made, models
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.folder import RunFolder
from steer_heal_love.ground.overrides import override
from steer_heal_love.ground.progress import silent
from tiny_model import build_model


def refused(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit) as e:
        cli.main(list(argv))
    assert e.value.code == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.fixture
def bases(tok, monkeypatch):
    """The seeds of the models that are loaded from now on, the last one again and again; and with what settings."""
    seeds, asked = [0], []

    def load(_name, **how):
        asked.append(how)
        return build_model(
            len(tok), tok.eos_token_id, seed=seeds[0] if len(seeds) == 1 else seeds.pop(0)
        ), tok

    monkeypatch.setattr(models, "load", load)
    return seeds, asked


@pytest.fixture
def run(tok, tmp_path, bases, random_adapter) -> Path:
    """A run that has healed a round, on the first base."""
    cfg = override(presets.preset("cpu"), {"model": "tiny"})
    model = build_model(len(tok), tok.eos_token_id)
    folder = RunFolder.create(tmp_path, "run")
    session.begun(cfg, model, tok, folder, silent)
    bake.save_peft(random_adapter(model, 1), folder.path / "adapter", base_model="tiny")
    return folder.path


def forged(run: Path, old: str, new: str) -> Path:
    """Other settings in a run folder, and a manifest that says that they were always there."""
    file, manifest = run / "config.toml", json.loads((run / "manifest.json").read_text())
    file.write_text(file.read_text().replace(old, new))
    manifest["files"]["config.toml"] = made.digest(file)
    (run / "manifest.json").write_text(json.dumps(manifest))
    return file


@pytest.mark.parametrize("form", ["peft", "merged", "gguf"])
def test_export_refuses_a_base_that_has_changed_as_resume_does(run, bases, capsys, tmp_path, form):
    out = tmp_path / "out"
    cli.main(["export", str(run), "--format", form, "--out", str(out)])
    assert out.is_dir()
    bases[0][:] = [77]
    told = {
        refused(capsys, "run", "--resume", str(run)),
        refused(capsys, "export", str(run), "--format", form, "--out", str(tmp_path / "other")),
    }
    assert all("was run on weights" in t for t in told)
    assert not (tmp_path / "other").exists()


def test_an_exported_adapter_is_evaluated_on_its_own_base_only(run, bases, tmp_path):
    cli.main(["export", str(run), "--out", str(tmp_path / "copy")])
    cfg = override(presets.preset("cpu"), {"model": "tiny", "eval": {"instruments": ["probes"], "probes": 2}})
    assert alone.evaluate(cfg, adapter=tmp_path / "copy").stage == "healed"
    bases[0][:] = [77]
    for folder in (tmp_path / "copy", run / "adapter"):
        with pytest.raises(UserError, match="was run on weights"):
            alone.evaluate(cfg, adapter=folder)


def test_a_run_folder_does_not_decide_that_code_is_run(run, bases, capsys, tmp_path):
    file = forged(run, "trust_remote_code = false", "trust_remote_code = true")
    for argv in (
        ["run", "--resume", str(run)],
        ["export", str(run), "--format", "merged", "--out", str(tmp_path / "out")],
        ["run", "--config", str(file)],
    ):
        assert "--trust-remote-code" in refused(capsys, *argv)
    with pytest.raises(UserError, match="trust_remote_code"):
        loop.run(resume=run)
    assert bases[1] == [], "a model was loaded"
    cli.main(
        ["export", str(run), "--format", "merged", "--trust-remote-code", "--out", str(tmp_path / "out")]
    )
    assert bases[1][0]["trust_remote_code"] is True


def test_a_run_that_was_started_without_code_is_not_given_it_by_its_folder(run, bases, tmp_path):
    cli.main(["export", str(run), "--format", "merged", "--out", str(tmp_path / "out")])
    assert bases[1][0]["trust_remote_code"] is False


def test_an_adapter_that_is_a_link_out_of_the_run_is_refused(run, capsys, tmp_path):
    (run / "adapter").rename(tmp_path / "elsewhere")
    (run / "adapter").symlink_to(tmp_path / "elsewhere")
    assert "leads out of" in refused(capsys, "export", str(run), "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_settings_of_a_run_folder_are_held_to_their_ranges(run, capsys):
    forged(run, "rounds = 3", "rounds = -1")
    assert "rounds: at least 1" in refused(capsys, "run", "--resume", str(run))


@pytest.mark.parametrize(
    "manifest",
    ["{", "[]", '{"schema": 1}', '{"schema": 1, "model_hash": 3}', '{"schema": 1, "dtype": "torch.int8"}'],
)
def test_a_damaged_manifest_is_a_message(run, capsys, manifest):
    (run / "manifest.json").write_text(manifest)
    assert "manifest.json" in refused(capsys, "export", str(run), "--out", "out")


def test_a_manifest_does_not_say_whose_home_it_was(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/home/someone"))
    assert manifest.homeless("/home/someone/models/x") == "~/models/x"
    assert manifest.homeless("/home/someone-else/x") == "/home/someone-else/x"
    assert manifest.homeless("hub/model") == "hub/model"


def test_a_manifest_holds_no_secret(run, monkeypatch):
    text = json.dumps(json.loads((run / "manifest.json").read_text()))
    assert str(Path.home()) not in text and "token" not in text.replace("tokenizers", "")


def test_a_run_killed_while_it_began_begins_in_the_same_folder(run, tmp_path):
    was = (run / "manifest.json").read_bytes()
    for name in ("manifest.json", "persona.toml"):
        (run / name).unlink()
    (run / "adapter").rename(tmp_path / "away")
    r = session.opened(run, silent)
    assert (
        r.folder.path == run
        and (run / "manifest.json").read_bytes() == was
        and (run / "persona.toml").is_file()
    )
    (run / "manifest.json").unlink()
    (run / "base").mkdir()
    with pytest.raises(UserError, match="no run there"):
        session.opened(run, silent)
