"""Bad input: what was found, what exists, exit 2, nothing written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from steer_heal_love import bake, cli, config, presets
from steer_heal_love.ground import embedded, models, records
from steer_heal_love.ground import folder as files
from steer_heal_love.ground.banks import bank
from steer_heal_love.ground.chat import template_hash
from steer_heal_love.ground.errors import UserError
from steer_heal_love.persona import names as persona_names
from steer_heal_love.persona import path as persona_path
from test_loop import SETTINGS
from tiny_model import build_model


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit) as e:
        cli.main(list(argv))
    assert e.value.code == 2
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return " ".join((said.err + said.out).split())


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["run", "--persona", "lave"], ["lave", "love", "Did you mean"]),
        (["run", "--persona", "nowhere.toml"], ["nowhere.toml", "does not exist"]),
        (["run", "--model", "no-such-model-anywhere"], ["no-such-model-anywhere", "smollm2"]),
        (["run", "--heal.lamb", "0.5"], ["heal.lamb"]),
        (["run", "--rounds", "0"], ["rounds: at least 1"]),
        (["run", "--generate.batch", "0", "--heal.soft", "1.5"], ["generate.batch: at least 1", "heal.soft"]),
        (
            ["compare", "--filter.keep", "3", "--heal.lr", "0"],
            ["filter.keep: at least filter.least", "heal.lr"],
        ),
        (["eval", "--paraphrases", "0", "--out", "x.json"], ["eval.paraphrases: at least 1, found 0"]),
        (["run", "--heal.aggregate", "median"], ["median"]),
        (["run", "--dtype", "float12"], ["float12"]),
        (["run", "--config", "none.toml"], ["none.toml"]),
        (["run", "--resume", "nothing"], ["nothing", "no run there"]),
        (["run", "--vector.method", "magic"], ["magic", "mean_diff"]),
        (["run", "--heal.divergence", "kl"], ["kl", "reverse_kl"]),
        (["run", "--filter.checks", "nil"], ["nil", "nll"]),
        (["run", "--eval.instruments", "probe"], ["probe", "probes"]),
        (["eval", "--vignettes", "none.jsonl", "--out", "x.json"], ["none.jsonl", "does not exist"]),
        (["eval", "--instrument", "tinymfv", "--out", "x.json"], ["moralmaps", "forced_choice"]),
        (["eval", "--think", "-1", "--out", "x.json"], ["eval.think_tokens"]),
        (["run", "--eval.instruments", "tinymfv"], ["moralmaps", "forced_choice"]),
        (["run", "--eval.vignette-bank", "none.jsonl"], ["none.jsonl", "does not exist"]),
        (["compare", "--methods", "stearing"], ["stearing", "steering"]),
        (["compare", "--seeds", "0"], ["seeds: at least 1"]),
        (["compare", "--persona", "lave"], ["lave", "love"]),
        (["compare", "--grid.scales", "2", "1"], ["grid.scales", "rising"]),
        (["compare", "--config", "none.toml"], ["none.toml"]),
        (["compare", "--executor", "rya"], ["unknown executor 'rya'", "'ray'"]),
        (["sweep", "none.toml"], ["none.toml"]),
        (["list", "colours"], ["colours", "personas"]),
        (["lint", "none.toml"], ["none.toml", "does not exist"]),
        (["frobnicate"], ["frobnicate", "run"]),
        (["report", "nothing"], ["nothing"]),
        (["vector", "inspect", "none.safetensors"], ["none.safetensors"]),
        (["export", "nothing", "--out", "x"], ["nothing", "no run there"]),
    ],
)
def test_what_the_user_can_fix_exits_2_and_writes_nothing(capsys, here, argv, words):
    said = refused(capsys, *argv)
    for word in words:
        assert word in said
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    "argv",
    [["run"], ["compare"], ["doctor"], ["eval", "--out", "x.json"], ["vector", "extract", "--out", "x.st"]],
    ids=" ".join,
)
@pytest.mark.parametrize("device", ["cuda", "gpu"])
def test_a_device_that_is_not_here_is_told_before_a_model_is_looked_for(
    capsys, here, monkeypatch, argv, device
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = refused(capsys, *argv, "--model", "no-such-model", "--device", device)
    assert f"device '{device}'" in said and "auto, cpu" in said and "no-such-model" not in said
    assert not list(here.iterdir())


def test_the_cards_that_are_here_are_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [models.known_device(d) for d in ("auto", "cuda", "cuda:1", "cpu")] == [
        "cuda",
        "cuda",
        "cuda:1",
        "cpu",
    ]
    with pytest.raises(UserError, match="cuda:2.*cuda, cuda:0, cuda:1"):
        models.known_device("cuda:2")


def test_the_package_runs_from_its_sources_in_any_folder(here):
    src = Path(cli.__file__).parents[1]
    told = subprocess.run(
        [sys.executable, "-m", "steer_heal_love", "list", "personas"],
        cwd=here,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(src)},
    )
    assert told.returncode == 0 and told.stdout.split() == persona_names(), told.stderr


def test_what_steers_is_listed_with_a_line_each_and_whether_it_folds(capsys):
    from steer_heal_love.ground.operations import foldings, operations

    cli.main(["list"])
    kinds = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines() if ": " in line)
    assert kinds["operations"].split(", ") == list(operations) and kinds["controls"] == "random, unrelated"
    assert kinds["adaptive"] == "decay, cap, rewind, gate, condition"
    for kind in ("operations", "controls", "adaptive"):
        cli.main(["list", kind])
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == kinds[kind].split(", ")
        for line in lines:
            name, exact = line.split()[0], "folds exactly into weights" in line
            assert exact or "folds exactly at the output" in line or "does not fold" in line
            assert exact == (foldings[name].exact if kind == "operations" else kind == "controls")


def test_a_persona_of_ones_own_is_linted_against_itself_and_the_shared_banks(capsys, here):
    text = persona_path("love").read_text(encoding="utf-8")
    (here / "mine.toml").write_text(text, encoding="utf-8")
    cli.main(["lint", "mine.toml"])
    assert "mine.toml: no findings" in capsys.readouterr().out
    first = json.dumps(bank("neutral_heldout")[0])
    wrong = text.replace("plain = [", f"plain = [\n  {first},").replace('pos = "', 'pos = "never ', 1)
    (here / "mine.toml").write_text(wrong, encoding="utf-8")
    said = refused(capsys, "lint", "mine.toml")
    for word in ("love: pos: negation 'never'", "neutral_heldout line 1: leak", "love: prompts.plain[0]"):
        assert word in said


def test_every_mistake_of_a_settings_file_is_listed(capsys, here):
    (here / "bad.toml").write_text('rounds = "three"\nspeed = 9\n[heal]\nlam = "x"\nwhat = 1\n')
    said = refused(capsys, "run", "--config", "bad.toml")
    for word in ("rounds", "speed", "heal.lam", "heal.what"):
        assert word in said


def test_a_model_without_a_chat_template_is_refused(tok, here):
    folder = here / "model"
    bare = type(tok)(tokenizer_object=tok.backend_tokenizer, eos_token="<|im_end|>")
    build_model(len(tok), tok.eos_token_id).save_pretrained(folder)
    bare.save_pretrained(folder)
    with pytest.raises(UserError, match="chat template"):
        models.load(str(folder), device="cpu", dtype="float32")


def test_a_cache_that_cannot_be_written_is_a_user_error_and_left_clean(here):
    """Without a GGUF: only the saving of what was read from it is at stake."""
    there = here / "cache" / "smollm2"

    torn = lambda _gguf: lambda to: save_file({"a": torch.ones(2)}, str(to))  # a folder, not a file
    with pytest.raises(UserError, match="cannot write.*directory"):
        embedded.convert(here / "a.gguf", there, torn)
    assert [p.name for p in here.rglob("*")] == ["cache"]
    (here / "file").write_text("mine")
    with pytest.raises(UserError, match="cannot write"):
        embedded.convert(here / "a.gguf", here / "file" / "cache" / "smollm2", torn)


def test_an_export_that_cannot_be_written_is_a_user_error(tok, here, capsys, monkeypatch, random_adapter):
    make = lambda *_args, **_kwargs: (build_model(len(tok), tok.eos_token_id), tok)
    monkeypatch.setattr("steer_heal_love.ground.models.load", make)
    model = make()[0]
    records.write_json(
        here / "run/manifest.json",
        {
            "schema": records.SCHEMA,
            "model": "tiny",
            "model_hash": models.fingerprint(model),
            "dtype": str(model.dtype),
            "chat_template_hash": template_hash(tok),
        },
    )
    files.save_config(config.RunConfig(), here / "run/config.toml")
    bake.save_peft(random_adapter(model, 0), here / "run/adapter", base_model="tiny")
    (here / "file").write_text("mine")
    for out in ("file", "file/below"):
        said = refused(capsys, "export", "run", "--format", "merged", "--out", out)
        assert f"cannot write {out}" in said
    assert (here / "file").read_text() == "mine"


def test_a_run_of_another_version_is_refused(capsys, here):
    (here / "run").mkdir()
    (here / "run" / "manifest.json").write_text(json.dumps({"schema": 99}))
    assert "version 99" in refused(capsys, "run", "--resume", "run")


def full(*_args, **_kwargs):
    raise OSError(28, "No space left on device")


def test_a_full_disk_keeps_the_last_good_state(tok, here, monkeypatch, undrawn):
    from steer_heal_love import loop

    monkeypatch.setattr(
        "steer_heal_love.ground.models.load",
        lambda _name, **_kwargs: (build_model(len(tok), tok.eos_token_id), tok),
    )

    one = SETTINGS | {"rounds": 1, "eval": SETTINGS["eval"] | {"instruments": ["probes"], "transfer": "off"}}
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(UserError, match=r"persona\.toml: No space left"):
            loop.run(out="runs", **one)
    shutil.rmtree("runs")
    with monkeypatch.context() as patch:
        patch.setattr("steer_heal_love.steps.save_healed", full)
        with pytest.raises(UserError, match="No space left"):
            loop.run(out="runs", **one)
    (run,) = (here / "runs").iterdir()
    assert (run / "base" / "scores.json").is_file()
    assert loop.run(resume=run).summary["rounds"] == 1


def test_resume_takes_no_other_settings(capsys, here):
    assert "give no others" in refused(capsys, "run", "--resume", "run", "--rounds", "5")


def test_loading_a_model_is_said(capsys, here):
    for named in (["--model"], []):
        assert "loading no-such-model-anywhere" in refused(capsys, "doctor", *named, "no-such-model-anywhere")


def test_a_forced_choice_is_asked_for_and_reads_any_bank_in_either_view(tok, here, monkeypatch):
    monkeypatch.setattr(
        "steer_heal_love.ground.models.load",
        lambda _name, **_kwargs: (build_model(len(tok), tok.eos_token_id), tok),
    )
    rows = [{"id": i, "see": f"You see {i}.", "you": f"You do {i}."} for i in range(3)]
    (here / "bank.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    argv = [
        "eval",
        "--instrument",
        "forced_choice",
        "vignettes",
        "--vignettes",
        "bank.jsonl",
        "--device",
        "cpu",
    ]
    found = {}
    for view in ("see", "you"):
        cli.main(
            [*argv, "--view", view, "--think", "2", "--system", "You are kind.", "--out", f"{view}.json"]
        )
        found[view] = json.loads((here / f"{view}.json").read_text())
    scores = found["see"]["scores"]
    assert scores["p_ans_any"]["n"] == scores["mfv.Care"]["n"] == 3
    assert scores["mfv_top1"]["n"] == 0 and scores["mfv_top1"]["mean"] is None
    assert "trait" not in scores
    assert found["see"]["items"]["mfv.Care"] != found["you"]["items"]["mfv.Care"]


def test_settings_layer_preset_then_file_then_options(tok, here, monkeypatch):
    seen = []
    finished = SimpleNamespace(folder=SimpleNamespace(path=here))
    monkeypatch.setattr("steer_heal_love.loop.run", lambda settings, **_: seen.append(settings) or finished)
    monkeypatch.setattr("steer_heal_love.report.terminal", lambda _path, **_: "")
    (here / "mine.toml").write_text("seed = 5\n[heal]\nepochs = 9\nlr = 0.5\n")
    cli.main(["run", "--config", "mine.toml", "--heal.lr", "0.25", "--preset", "cpu"])
    assert (seen[0].seed, seen[0].heal.epochs, seen[0].heal.lr) == (5, 9, 0.25)
    assert seen[0].heal.rank == config.RunConfig().heal.rank
    cli.main(["run", "--preset", "gpu"])
    monkeypatch.setattr(models, "auto_device", lambda: "cuda")
    cli.main(["run", "--model=hub/model"])
    cli.main(["run"])
    long, short = (presets.preset(name).generate.max_new_tokens for name in ("gpu", "cpu"))
    assert [s.generate.max_new_tokens for s in seen[1:]] == [long, long, short]


def test_a_comparison_takes_every_setting_and_its_own_folder(here, monkeypatch):
    seen = []
    monkeypatch.setattr("steer_heal_love.compare.run", lambda settings, **own: seen.append((settings, own)))
    monkeypatch.setattr("steer_heal_love.report.terminal_comparison", lambda _path: "")
    (here / "mine.toml").write_text('seed = 5\nout = "elsewhere"\n')
    given = "--config mine.toml --heal.lr 0.25 --seeds 2 --methods sft prompt --grid.scales 1 2 --out there"
    cli.main(["compare", *given.split()])
    cli.main(["compare"])
    (settings, own), (_, default) = seen
    assert (settings.seed, settings.heal.lr) == (5, 0.25)
    assert (own["out"], own["seeds"], own["methods"], own["grid"].scales) == (
        "there",
        2,
        ("sft", "prompt"),
        (1.0, 2.0),
    )
    assert (default["out"], default["seeds"], default["methods"]) == ("compare", 3, ())


def test_a_folder_that_holds_something_else_is_refused_and_kept(capsys, here):
    (here / "c").mkdir()
    (here / "c" / "note.txt").write_text("mine")
    assert "something else" in refused(capsys, "compare", "--out", "c")
    assert [p.name for p in here.rglob("*")] == ["c", "note.txt"]
