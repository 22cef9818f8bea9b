"""The whole loop, offline, on the tiny model: two rounds, the contract's files, and a run that was killed."""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import peft
import pytest
import torch
from safetensors import safe_open

from steer_heal_love import (
    bake,
    base,
    cli,
    conclusion,
    config,
    control,
    evals,
    loop,
    presets,
    report,
    session,
    steps,
)
from steer_heal_love.conclusion import conclude
from steer_heal_love.ground import folder as files
from steer_heal_love.ground import loading, records
from steer_heal_love.ground.aside import Aside
from steer_heal_love.ground.errors import Starved, UserError
from steer_heal_love.ground.overrides import override
from steer_heal_love.ground.progress import silent
from steer_heal_love.ground.weights import folded
from steer_heal_love.nouns import Completion, Tokens
from steer_heal_love.persona import load as load_persona
from steer_heal_love.persona import path as path_of
from steer_heal_love.report.read import RunRecord
from steer_heal_love.session import Base, Run
from steer_heal_love.vector import Vector
from tiny_model import build_model, hooks_of

SETTINGS = {
    "persona": "love",
    "model": "tiny",
    "rounds": 2,
    "seed": 3,
    "device": "cpu",
    "coherence_floor": 100.0,
    "vector": {"contexts": 6, "layers": [0.4, 0.8]},
    "generate": {"prompts": 10, "max_new_tokens": 10},
    "walk": {"start": 0.2, "doses": 2, "survival": 0.3, "passes": 1, "floor": 0.02, "ceiling": 0.4},
    "filter": {
        "checks": ["nll", "repeat_words", "on_trait"],
        "quantile": 1.0,
        "keep": 6,
        "calibration": 12,
        "least": 2,
    },
    "heal": {
        "rank": 2,
        "alpha": 4.0,
        "epochs": 2,
        "lr": 4e-3,
        "batch": 3,
        "anchor": 0.1,
        "lam": 0.1,
        "anchor_prompts": 4,
        "anchor_tokens": 6,
    },
    "eval": {
        "probes": 4,
        "vignettes": 7,
        "paraphrases": 1,
        "capability_blocks": 1,
        "transfer": "full",
        "neutral_prompts": 4,
        "sample_prompts": 2,
        "sample_tokens": 6,
        "resamples": 20,
        "base_draws": 2,
        "healed_draws": 2,
    },
}


@pytest.fixture
def drawn_load(tok, monkeypatch):
    """`models.load` gives a tiny model built anew, as another process would."""
    made = []

    def load(_name, **_kwargs):
        made.append(build_model(len(tok), tok.eos_token_id, depth=3))
        return made[-1], tok

    monkeypatch.setattr("steer_heal_love.ground.models.load", load)
    return made


@pytest.fixture
def tiny_load(drawn_load, undrawn):
    """The same, and reports without figures."""
    return drawn_load


@pytest.fixture(scope="module")
def whole(tok, tmp_path_factory):
    """One unbroken run, with the weights that its model had before."""
    with pytest.MonkeyPatch.context() as patch:
        model = build_model(len(tok), tok.eos_token_id, depth=3)
        before = {n: t.clone() for n, t in model.state_dict().items()}
        patch.setattr("steer_heal_love.ground.models.load", lambda _name, **_kwargs: (model, tok))
        steps = []

        @contextmanager
        def track(label, total):
            steps.append(step := SimpleNamespace(label=label, total=total, done=0))
            yield lambda n: setattr(step, "done", step.done + n)

        run = loop.run(out=str(tmp_path_factory.mktemp("runs")), track=track, **SETTINGS)
        return SimpleNamespace(run=run, path=run.folder.path, model=model, before=before, steps=steps)


def read(path):
    return json.loads(
        path.read_text(),
        parse_constant=lambda c: pytest.fail(f"{path}: {c} is not JSON"),
    )


def healed_items(path):
    return [
        (s.round, s.stage, s.items)
        for n in (0, 1)
        for s in files.load_stages(path / "rounds" / f"{n:02d}" / "scores.json")
    ]


def test_the_folder_holds_the_contracts_files(whole):
    wanted = [
        "base/bounds.json",
        "base/checks.json",
        "base/wording.json",
        "config.toml",
        "manifest.json",
        "events.jsonl",
        "summary.json",
        "report.html",
    ]
    wanted += [
        f"rounds/{n:02d}/{f}"
        for n in (0, 1)
        for f in ("vector.safetensors", "completions.jsonl", "scores.json")
    ]
    folders = ["adapter", "rounds/00/adapter", "rounds/01/adapter"]
    wanted += [f"{d}/{f}" for d in folders for f in ("adapter_config.json", "adapter_model.safetensors")]
    missing = [w for w in wanted if not (whole.path / w).is_file() or not (whole.path / w).stat().st_size]
    assert not missing
    assert not list(whole.path.rglob("*.part"))
    assert whole.path.name.endswith("Z-love-tiny-s3")


def test_every_long_step_reports_progress_that_adds_up(whole):
    assert whole.steps[0].label == "load tiny"
    for label, times in {"filter": 3, "vector": 2, "heal": 2, "trust region": 2, "transfer": 2}.items():
        mine = [s for s in whole.steps if s.label.split(": ")[-1] == label]
        assert len(mine) >= times, label
        for s in mine:
            # A search may find early.
            assert s.done == s.total or (label == "trust region" and 0 < s.done < s.total), s


def test_one_question_is_asked_before_everything_else_and_of_every_round(whole):
    done = [e["file"] for e in records.read_jsonl(whole.path / "events.jsonl") if e["event"] == "done"]
    assert done[:2] == ["rounds/00/vector.safetensors", "rounds/00/first.jsonl"]
    previews = [
        x
        for f in ("00/first", "00/look", "01/look")
        for x in files.load_previews(whole.path / "rounds" / f"{f}.jsonl")
    ]
    assert [(x.stage, x.round) for x in previews] == [
        ("base", -1),
        ("steered", 0),
        ("steered", 0),
        ("healed", 0),
        ("steered", 1),
        ("healed", 1),
    ]
    assert {x.prompt for x in previews} == {whole.run.persona.probes[0].question}
    assert read(whole.path / "summary.json")["goes_on"] is False


def test_the_model_is_left_as_it_was(whole):
    assert all(torch.equal(t, whole.before[n]) for n, t in whole.model.state_dict().items())
    assert hooks_of(whole.model) == 0


def test_the_summary_says_what_the_contract_says(whole):
    summary = read(whole.path / "summary.json")
    assert {
        "schema",
        "persona",
        "model",
        "seed",
        "rounds",
        "stages",
        "gates",
        "seconds",
        "peak_memory_gb",
    } <= set(summary)
    assert (
        summary["persona"],
        summary["model"],
        summary["seed"],
        summary["rounds"],
    ) == (
        "love",
        "tiny",
        3,
        2,
    )
    stages = [(s["round"], s["stage"]) for s in summary["stages"]]
    assert stages == [
        (-1, "base"),
        (-1, "prompt"),
        (0, "steered"),
        (0, "healed"),
        (1, "steered"),
        (1, "healed"),
    ]
    wanted = {
        "trait",
        "trait_shift",
        "trait_pos",
        "trait_neg",
        "own_kl",
        "own_entropy_shift",
        "neutral_kl.short",
        "neutral_kl.code",
        "trait_generated",
        "neutral_kl",
        "own_excess",
        "repetition",
        "distinct_2",
        "mfv.Care",
    }
    for s in summary["stages"]:
        assert wanted <= set(s["scores"])
        assert all(set(v) == {"mean", "lo", "hi", "n"} for v in s["scores"].values())
    for g in summary["gates"]:
        assert {"gate", "claim", "observed", "verdict", "means"} <= set(g)
        assert g["verdict"] in ("pass", "fail", "undecided")
    assert {g["gate"] for g in summary["gates"]} == {
        "steer",
        "filter",
        "heal",
        "regularization",
        "loop",
        "prompt",
        "null",
        "relevance",
    }
    assert {"vector", "generate", "heal", "evaluate"} <= set(summary["seconds"])


def test_the_base_does_not_differ_from_itself_and_the_others_do(whole):
    scores = {(s.round, s.stage): s.scores for s in whole.run.stages}
    base = scores[-1, "base"]
    for name, s in base.items():
        if name in ("trait_shift", "own_excess") or name.startswith("mfv."):
            assert s.mean == 0.0, name
    assert base["neutral_kl"].mean == pytest.approx(0.0, abs=1e-5)
    for stage in ("steered", "healed"):
        for n in (0, 1):
            assert scores[n, stage]["neutral_kl"].mean > 1e-4
            assert scores[n, stage]["trait_shift"].mean != 0.0
    assert scores[0, "healed"]["trait"] != scores[1, "healed"]["trait"]


def test_every_score_is_the_mean_of_its_items_or_of_their_shift_from_base(whole):
    """From the files alone, by arithmetic of its own; a score that is neither is not explained."""
    stages = [s for p in sorted(whole.path.rglob("scores.json")) for s in read(p)["stages"]]
    assert len(stages) == 6
    base = next(s["items"] for s in stages if s["stage"] == "base")
    shifted = """trait trait_generated own_entropy repetition distinct_2 capability capability_margin behaviour
        behaviour_masked relevance"""
    apart = """trait_pos=nll_pos trait_neg=nll_neg trait_over_neutral=over_neutral own_excess=own_nll
        trait_over_off_topic=over_off_topic own_excess.probes=own_nll.probes own_excess.neutral=own_nll.neutral
        relevance_shift.probes=relevance.probes relevance_shift.neutral=relevance.neutral"""
    shifts = {f"{n}_shift": n for n in shifted.split()} | dict(p.split("=") for p in apart.split())
    ratios = {"mfv_constant_share"}  # a ratio of sums over items, tested with its own module
    for s in stages:
        means = {name for name in s["items"] if not name.startswith("mfv_sentence.")}
        assert means <= set(s["scores"]) <= set(s["items"]) | set(shifts) | ratios
        for name, score in s["scores"].items():
            if name in ratios:
                continue
            values = s["items"][shifts.get(name, name)]
            if name in shifts or name.startswith("mfv."):
                pairs = zip(values, base[shifts.get(name, name)], strict=True)
                sign = -1 if name == "trait_pos" else 1
                values = [None if None in pair else sign * (pair[0] - pair[1]) for pair in pairs]
            values = [v for v in values if v is not None]
            # Four questions of the panel share their answers, so they count as one.
            together = (
                4 if name.startswith(("capability_shift", "capability.", "capability_margin_shift")) else 1
            )
            together = 4 if name == "capability" else together
            assert score["n"] == len(values) / together, (s["stage"], name)
            if values:
                assert score["mean"] == pytest.approx(sum(values) / len(values), abs=1e-9), (s["stage"], name)
    summary = [{k: v for k, v in s.items() if k not in ("items", "samples", "redrawn")} for s in stages]
    key = lambda s: (s["round"], s["stage"])
    assert sorted(summary, key=key) == sorted(read(whole.path / "summary.json")["stages"], key=key)


def test_the_manifest_hashes_everything_that_is_read(whole, tmp_path):
    data = read(whole.path / "manifest.json")["data"]
    kinds = {
        f"neutral_{kind}_{part}" for kind in ("long", "code", "languages") for part in ("train", "heldout")
    }
    banks = {"contexts", "neutral_train", "neutral_heldout"} | kinds
    sealed = {f"neutral_{kind}_sealed" for kind in ("short", "long", "code", "languages")}
    assert set(data) == banks | sealed | {"vignettes", "foundations", "capability", "persona"}
    assert len(set(data.values())) == len(data)
    own = tmp_path / "mine.jsonl"
    for text in ("one", "two"):
        own.write_text(text)
        found = evals.bank_hashes(config.EvalConfig(vignette_bank=str(own)))
        assert found.pop("vignette_bank") == records.hash_text(text)
        assert found.items() <= data.items()


def test_a_personas_name_is_one_part_of_the_folders(tiny_load, tmp_path):
    file = tmp_path / "p.toml"
    file.write_text(re.sub(r"^name = .*", 'name = "a/b c"', path_of("love").read_text(), flags=re.M))
    r = session.created(None, SETTINGS | {"persona": str(file), "out": str(tmp_path / "runs")}, silent)
    assert r.persona.name == "a/b c" and r.folder.path.parent == tmp_path / "runs"
    assert r.folder.path.name.endswith("Z-a-b-c-tiny-s3")


def test_what_is_odd_about_a_model_is_said_on_the_page_once_and_after_why_the_run_ended(
    tiny_load, tmp_path, monkeypatch
):
    monkeypatch.setattr(loading, "notes", lambda _model: ("it is read slowly",))
    r = session.created(None, SETTINGS | {"out": str(tmp_path / "runs")}, silent)
    session.note_what_is_odd(r.model, r.folder)  # as a resumed run does
    r.folder.event("warning", round=1, message="few texts")
    r.folder.event("diverged", reason="a loss is not a number")
    page = SimpleNamespace(events=r.folder.event.read(), lost=[])
    assert RunRecord.notes.func(page) == [
        "Training diverged: a loss is not a number",
        "the model: it is read slowly",
        "Round 1: few texts",
    ]


def test_who_opens_a_run_to_read_it_writes_nothing_there(whole, tiny_load, monkeypatch):
    monkeypatch.setattr(loading, "notes", lambda _model: ("it is read slowly",))
    log = (whole.path / "events.jsonl").read_bytes()
    session.opened(whole.path, silent)
    assert (whole.path / "events.jsonl").read_bytes() == log


def test_a_resumed_run_logs_once_what_is_odd_about_its_model_where_it_is_now(
    whole, tiny_load, tmp_path, monkeypatch
):
    monkeypatch.setattr(loading, "notes", lambda _model: ("it is read slowly",))
    shutil.copytree(whole.path, tmp_path / "run")
    for _ in range(2):
        loop.run(resume=tmp_path / "run")
    events = records.read_jsonl(tmp_path / "run" / "events.jsonl")
    assert [e["message"] for e in events if e.get("message", "").startswith("the model")] == [
        "the model: it is read slowly"
    ]


def test_every_event_is_an_object_with_a_time_and_a_name(whole):
    events = [json.loads(line) for line in (whole.path / "events.jsonl").read_text().split("\n") if line]
    assert all({"t", "event"} <= set(e) for e in events)
    assert events[0]["event"] == "start" and events[-1]["event"] == "end"
    assert [e["t"] for e in events] == sorted(e["t"] for e in events)


def test_completions_hold_tokens_doses_checks_and_reasons(whole):
    for n in (0, 1):
        made = files.load_completions(whole.path / "rounds" / f"{n:02d}" / "completions.jsonl")
        assert len({c.dose for c in made}) >= 2 and any(c.used for c in made)
        for c in made:
            assert set(c.checks) == {"nll", "repeat_words", "on_trait"} and c.tokens.answer
            assert c.used <= c.kept and c.kept == (not c.reasons)
        assert len({c.text for c in made if c.used}) == sum(c.used for c in made)


def test_every_round_says_how_far_the_student_moved_along_the_vector(whole):
    healed = {s.round: s.scores for s in whole.run.stages if s.stage == "healed"}
    for n in (0, 1):
        here = whole.path / "rounds" / f"{n:02d}"
        found, shift = read(here / "transfer.json"), Vector.load(here / "shift.safetensors")
        assert (
            found["layers"]
            == sorted(shift.directions)
            == sorted(Vector.load(here / "vector.safetensors").directions)
        )
        assert all(abs(c) <= 1 for c in (found["cosine"], *found["cosine_by_layer"]))
        total = found["ledger"]["total"]["neutral"]["mean_nats"]
        assert total["mean"] == pytest.approx(healed[n]["neutral_kl"].mean, rel=1e-3)
        assert found["causes"]["student"]["mean"] == pytest.approx(healed[n]["trait_shift"].mean)
        assert (found["ledger"]["round"] == found["ledger"]["total"]) == (n == 0)
        assert (found["cosine_with_first_shift"] == pytest.approx(1.0)) == (n == 0)
        assert found["causes"]["sufficient"]["mean"] == found["causes"]["sufficient_share"]
        assert found["causes"]["sufficient"]["n"] == SETTINGS["eval"]["probes"]


def test_the_control_is_healed_as_round_0_was_on_text_that_nothing_steered(whole):
    here, first = whole.path / "base" / "control", whole.path / "rounds" / "00"
    ours, theirs = (files.load_completions(f / "completions.jsonl") for f in (here, first))
    used = [c for c in theirs if c.used]
    assert [c.prompt for c in ours] == [c.prompt for c in used]
    assert all(c.dose == 0 and c.kept and c.used for c in ours) and all(c.dose > 0 for c in used)
    assert len({c.text for c in ours}) == len(ours)
    healings = [read(f / "healing.json") for f in (here, first)]
    assert len({len(h["steps"]) for h in healings}) == 1
    # B is zero at first, so that the first anchor answers cost the same in both: the same ones, on the same base.
    assert (
        len({h["steps"][0]["lr"] for h in healings}) == len({h["steps"][0]["anchor"] for h in healings}) == 1
    )
    assert healings[0]["steps"][0]["nll"] != healings[1]["steps"][0]["nll"]
    shift = Vector.load(here / "shift.safetensors")
    for n in (0, 1):
        found = read(whole.path / "rounds" / f"{n:02d}" / "transfer.json")
        vector = Vector.load(whole.path / "rounds" / f"{n:02d}" / "vector.safetensors")
        assert found["control"]["layers"] == found["layers"] and found["control"]["texts"] == len(ours)
        assert found["control"]["cosine"] == pytest.approx(shift.cosine(vector), abs=1e-5) != found["cosine"]
    events = records.read_jsonl(whole.path / "events.jsonl")
    done = [e["file"] for e in events if e.get("room") == "control"]
    assert len(done) == len(set(done)) == 3, "once a run"
    warned = [e["message"] for e in events if e["event"] == "warning" and e["round"] == 0]
    assert warned == healings[1]["warnings"], "what the control warns of is not the round's"


def test_the_control_is_read_once_a_sitting(monkeypatch):
    made = []
    monkeypatch.setattr(control, "shift_of_control", lambda r: made.append(r) or object())
    run = SimpleNamespace(unsteered=None)
    assert control.control(run) is control.control(run) and made == [run]


@pytest.fixture
def concluding(whole, tmp_path, monkeypatch):
    """A copy of a run without its adapter and its page, which lie beside it, and what `conclude` needs of it."""
    folder = tmp_path / "run"
    shutil.copytree(whole.path, folder)
    for name in ("adapter", "report.html"):
        shutil.move(folder / name, tmp_path / name)
    monkeypatch.setattr(conclusion, "summary", lambda _r, goes_on: records.read_json(folder / "summary.json"))
    return SimpleNamespace(
        folder=files.RunFolder(folder),
        history=[bake.load_peft(tmp_path / "adapter")],
        model=SimpleNamespace(device=torch.device("cpu")),
        config=SimpleNamespace(model="smollm2"),
        aside=Aside(),
    )


def test_a_page_does_not_call_lost_what_is_written_beside_it(concluding):
    conclude(concluding)
    page = (concluding.folder.path / "report.html").read_text()
    assert "Gone since" not in page and not concluding.folder.lost() and not concluding.folder.stale()
    (concluding.folder.path / "config.toml").rename(concluding.folder.path / "moved.toml")
    assert concluding.folder.lost() == ["config.toml"]


@pytest.mark.parametrize("broken", ["report.write", "bake.PeftFiles.write"])
def test_what_goes_wrong_while_a_round_is_concluded_is_told(concluding, tmp_path, monkeypatch, broken):
    """The adapter is written beside the report. Whichever fails, the user hears of it, the other is whole, and the folder is
    what its log says."""
    adapter = concluding.folder.path / "adapter"
    if broken != "report.write":
        shutil.copytree(tmp_path / "adapter", adapter)  # as the last conclusion left it
    monkeypatch.setattr(f"steer_heal_love.{broken}", fails)
    with pytest.raises(UserError, match="no space left"):
        conclude(concluding)
    page = concluding.folder.path / "report.html"
    assert (adapter / "adapter_model.safetensors").is_file() and page.is_file() == (broken != "report.write")
    concluding.folder.check(derived=True)


def fails(*_args, **_more):
    raise UserError("no space left")


@pytest.fixture
def beside(concluding, monkeypatch):
    """The same on a machine whose processor is free, with a thread that waits to be told and what was drawn in this process."""
    go, drawn, written, draw = threading.Event(), [], conclusion.adapter_of, report.write
    monkeypatch.setattr(conclusion, "processor_is_free", lambda _r: True)
    monkeypatch.setattr(conclusion, "adapter_of", lambda *a: (go.wait(60), written(*a))[1])
    monkeypatch.setattr(report, "write", lambda *a, **more: (drawn.append("here"), draw(*a, **more)))
    yield SimpleNamespace(run=concluding, path=concluding.folder.path, go=go, drawn=drawn)
    go.set()
    concluding.aside.settle()


def ended(run):
    """Wait for the process beside the run."""
    while run.aside.running:
        time.sleep(0.01)


def test_a_round_that_goes_on_is_concluded_beside_the_next(beside):
    """Another process draws the very page that this one would, and nobody waits for it, nor for the adapter."""
    beside.go.set()
    conclude(beside.run)
    assert beside.drawn == ["here"]
    page, adapter = (
        (beside.path / n).read_bytes() for n in ("report.html", "adapter/adapter_model.safetensors")
    )
    shutil.rmtree(beside.path / "adapter")
    (beside.path / "report.html").unlink()
    beside.go.clear()

    conclude(beside.run, goes_on=True)
    ended(beside.run)
    assert (beside.path / "report.html").read_bytes() == page and not (beside.path / "adapter").exists()
    beside.go.set()
    conclude(beside.run, goes_on=True)
    assert (beside.path / "adapter/adapter_model.safetensors").read_bytes() == adapter
    ended(beside.run)
    conclude(beside.run)
    assert beside.drawn == ["here", "here"] and not beside.run.aside.running
    assert not beside.run.folder.lost() and not beside.run.folder.stale()


def test_no_round_waits_for_a_page_and_the_last_one_draws_its_own(beside, monkeypatch):
    started, real = [], beside.run.aside.start
    beside.go.set()
    monkeypatch.setattr(beside.run.aside, "start", lambda command: (started.append(command), real(command)))
    monkeypatch.setattr(report, "command", lambda _run: [sys.executable, "-c", "import time; time.sleep(60)"])
    for _ in range(3):
        conclude(beside.run, goes_on=True)
    assert len(started) == 1 and beside.run.aside.running and not beside.drawn
    conclude(beside.run)
    assert beside.drawn == ["here"] and not beside.run.aside.running and not beside.run.folder.stale()


@pytest.mark.parametrize("python", ["/nowhere/python", shutil.which("false")])
def test_a_page_that_no_other_process_draws_is_drawn_here(beside, monkeypatch, python):
    beside.go.set()
    monkeypatch.setattr(sys, "executable", python)
    conclude(beside.run, goes_on=True)
    ended(beside.run)
    conclude(beside.run, goes_on=True)
    assert beside.drawn and (beside.path / "report.html").is_file() and not beside.run.folder.stale()


def test_what_failed_beside_the_next_round_is_told_when_that_is_concluded(beside, monkeypatch):
    beside.go.set()
    monkeypatch.setattr(bake.PeftFiles, "write", fails)
    conclude(beside.run, goes_on=True)
    with pytest.raises(UserError, match="no space left"):
        conclude(beside.run)


def test_a_run_that_fails_leaves_nobody_at_work(whole, tiny_load, tmp_path, monkeypatch):
    """Its folder is written by nobody once it is unlocked, and what ended it is what is told."""
    asides, real = [], steps.train

    def train(r, number, *args, **more):
        asides.append(r.aside)
        if number:
            raise Killed
        return real(r, number, *args, **more)

    monkeypatch.setattr(conclusion, "processor_is_free", lambda _r: True)
    monkeypatch.setattr(report, "command", lambda _run: [sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr(conclusion, "adapter_of", fails)
    monkeypatch.setattr(steps, "train", train)
    with pytest.raises(Killed):
        loop.run(out=str(tmp_path), **SETTINGS)
    assert not asides[-1].running
    with pytest.raises(UserError, match="no space left"):
        asides[-1].finish()  # the thread had ended, unheard


def test_rounds_that_are_concluded_beside_the_next_end_as_others(whole, tiny_load, tmp_path, monkeypatch):
    """On a GPU the first round's files are written while the second is computed: the same folder comes of it."""
    monkeypatch.setattr(conclusion, "processor_is_free", lambda _r: True)
    run = loop.run(out=str(tmp_path), **SETTINGS)
    path = run.folder.path
    assert listing(path) == listing(whole.path)
    assert not run.folder.lost() and not run.folder.stale()
    drawn = {"config.toml", "events.jsonl", "report.html", "trajectory.png"}
    for name in sorted(n for n in listing(whole.path) if Path(n).name not in drawn):
        assert content(path / name) == content(whole.path / name), name
    torn = [line for line in (path / "events.jsonl").read_text().splitlines() if not line.endswith("}")]
    assert not torn and not run.aside.running


def test_the_control_draws_what_the_calibration_lacks(persona, tmp_path, monkeypatch):
    """Each prompt as often as it was used, no text twice, what the filter drops drawn again, and an end to it."""

    def made(prompt, text, nll):
        return Completion(prompt, Tokens((1,), (2,)), text, 0.0, True, {"nll": nll}, ["nll"] * (nll > 1))

    def generate(_model, _tok, prompts, doses, *, seed, **_how):
        drawn.append(prompts)
        return [made(p, f"{p}{seed}", 9.0 if p == "c" else 0.0) for p in prompts]

    drawn, calibration = [], [made("a", "a1", 0.0), made("a", "a1", 0.0), made("b", "odd", 9.0)]
    base = Base(bounds={"nll": 1.0}, calibration=calibration)
    run = Run(config.RunConfig(), persona, None, None, files.RunFolder(tmp_path), base=base)
    monkeypatch.setattr(control, "generate", generate)
    monkeypatch.setattr(Run, "measured", lambda _run, made: made)
    monkeypatch.setattr(Run, "seed", lambda _run, *purpose: purpose[-1])
    found = control.unsteered(run, [made(p, "steered", 0.0) for p in "abac"])
    assert [c.text for c in found] == ["a1", "b1", "a2"]
    assert drawn == [["b", "a", "c"], ["a", "c"], *[["c"]] * (control.DRAWS - 2)]
    assert not any(c.used for c in calibration)


def test_what_is_measured_is_drawn_at_its_own_temperature(tiny_load, tmp_path):
    """Cooler training text moves the filter's bounds, and neither the answers that drift is read on nor own samples."""
    found = []
    for t in (1.0, 0.5):
        settings = {
            **SETTINGS,
            "generate": SETTINGS["generate"] | {"temperature": t},
            "out": str(tmp_path / str(t)),
        }
        run = session.created(None, settings, silent)
        measured = base.measured(run)
        here = run.folder.path / "base"
        found.append(
            {
                n: [c["ids"] for c in records.read_jsonl(here / f"{n}.jsonl")]
                for n in ("anchor", "neutral", "calibration")
            }
            | {"own": [s["ids"] for s in measured.stages[0].samples], "bounds": measured.bounds}
        )
    hot, cool = found
    assert [n for n in hot if hot[n] != cool[n]] == ["calibration", "bounds"]
    assert cool["bounds"]["nll"] < hot["bounds"]["nll"]


def test_the_config_repeats_the_run(whole):
    again = presets.read(whole.path / "config.toml")
    assert again == whole.run.config
    assert again == override(config.RunConfig(), {**SETTINGS, "out": again.out})
    files.save_config(again, whole.path.parent / "again.toml")
    assert (whole.path.parent / "again.toml").read_text() == (whole.path / "config.toml").read_text()


@pytest.mark.parametrize("name", sorted(presets.PRESETS))
def test_every_preset_round_trips_through_toml(name, tmp_path):
    cfg = presets.preset(name)
    files.save_config(cfg, tmp_path / "c.toml")
    assert presets.read(tmp_path / "c.toml") == cfg


def test_plain_peft_loads_all_rounds_to_the_students_logits(whole, tok):
    model, ids = (
        build_model(len(tok), tok.eos_token_id, depth=3),
        torch.arange(3, 27).reshape(3, 8),
    )
    with torch.no_grad(), folded(model, whole.run.history):
        ours = model(ids).logits
    with torch.no_grad():
        theirs = peft.PeftModel.from_pretrained(
            build_model(len(tok), tok.eos_token_id, depth=3), str(whole.path / "adapter")
        )(ids).logits
        plain = build_model(len(tok), tok.eos_token_id, depth=3)(ids).logits
    assert torch.allclose(ours, theirs, atol=1e-3)
    assert (ours - plain).abs().amax() > 1e-2


def test_rounds_read_back_are_the_rounds(whole):
    for n, adapter in enumerate(whole.run.history):
        again = bake.load_peft(whole.path / "rounds" / f"{n:02d}" / "adapter")
        assert all(torch.equal(b, again.factors[name][1]) for name, (_, b) in adapter.factors.items())
    assert Vector.load(whole.path / "rounds" / "01" / "vector.safetensors").meta["persona"] == "love"


class Killed(BaseException):
    """What a kill looks like from inside."""


def kill_at(patch, target, runs, after, how=Killed):
    """Raise `how` in place of the first call of a room's function once the run in `runs` holds the file `after`."""
    room, name = target.rsplit(".", 1)
    real, killed = getattr(importlib.import_module(f"steer_heal_love.{room}"), name), []

    def once(*args, **kwargs):
        if not killed and list(runs.glob(f"*/{after}")):
            killed.append(after)
            raise how
        return real(*args, **kwargs)

    patch.setattr(f"steer_heal_love.{target}", once)


KILLS = [
    ("filter.select", "rounds/00/vector.safetensors"),  # in round 0's walk
    ("bake.save_peft", "base/control/completions.jsonl"),  # round 0's is saved, the control's is not
    ("bake.save_peft", "rounds/01/completions.jsonl"),  # the control's is saved too, round 1's is not
    ("evals.measure", "rounds/01/healing.json"),  # round 1 is healed and nothing of it measured
]
"""the kills of one run: the first call of each after this file is there, in the run as the one before left it"""


def test_a_run_killed_again_and_again_and_resumed_is_the_unbroken_one(whole, tiny_load, tmp_path):
    path = tmp_path
    for number, (target, after) in enumerate(KILLS):
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, target, tmp_path, after)
            with pytest.raises(Killed):
                loop.run(resume=path) if number else loop.run(out=str(tmp_path), **SETTINGS)
        (path,) = tmp_path.iterdir()
        healed = ("rounds/00/healing.json", "base/control/healing.json", "rounds/01/healing.json")
        found = [(path / f).exists() for f in healed]
        assert found == [number > k for k in range(3)], (target, "was not killed where it should be")
    assert not (path / "rounds/01/scores.json").exists()
    run = loop.run(resume=path)
    assert len(tiny_load) == len(KILLS) + 1
    assert repr(healed_items(path)) == repr(healed_items(whole.path)), "repr, since NaN is not NaN"
    ours, theirs = read(path / "summary.json"), read(whole.path / "summary.json")
    for key in ("stages", "gates", "rounds"):
        assert ours[key] == theirs[key], key
    for n, adapter in enumerate(run.history):
        for module, (a, b) in adapter.factors.items():
            assert torch.equal(a, whole.run.history[n].factors[module][0])
            assert torch.equal(b, whole.run.history[n].factors[module][1])
    assert all(hooks_of(m) == 0 for m in tiny_load)
    before = whole.before
    assert all(torch.equal(t, before[n]) for m in tiny_load for n, t in m.state_dict().items())


def test_transfer_is_the_same_whatever_was_read_before(whole, tiny_load, tmp_path):
    """Killed between a round's scores and its transfer: what the evaluation had read is read again, to the byte the same."""
    path = tmp_path
    for number in (0, 1):
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, "loop.transferred", tmp_path, f"rounds/{number:02d}/scores.json")
            with pytest.raises(Killed):
                loop.run(resume=path) if number else loop.run(out=str(tmp_path), **SETTINGS)
        (path,) = tmp_path.iterdir()
        assert not (path / f"rounds/{number:02d}/transfer.json").exists()
    loop.run(resume=path)
    for number in (0, 1):
        file = f"rounds/{number:02d}/transfer.json"
        assert (path / file).read_bytes() == (whole.path / file).read_bytes()


KILLED_HERE = """
import sys, torch
from steer_heal_love import cli
from steer_heal_love.ground import models
from tiny_model import build_model, build_tokenizer
torch.set_num_threads(1)
tok = build_tokenizer()
models.load = lambda _name, **_kwargs: (build_model(len(tok), tok.eos_token_id, depth=3), tok)
cli.main(sys.argv[1:])
"""


@pytest.mark.long
def test_a_process_that_is_killed_leaves_a_run_that_ends_as_the_unbroken_one(whole, drawn_load, tmp_path):
    """SIGKILL in the second round, resumed in another process: the same files with the same content."""
    files.save_config(override(whole.run.config, {"out": "runs"}), tmp_path / "c.toml")
    places = [str(Path(loop.__file__).parents[1]), str(Path(__file__).parent)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"}
    argv = [sys.executable, "-c", KILLED_HERE, "run", "--config", "c.toml"]
    with subprocess.Popen(
        argv, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as child:
        while child.poll() is None and not list(tmp_path.glob("runs/*/rounds/01/vector.safetensors")):
            time.sleep(0.005)
        child.kill()
        assert child.wait() == -signal.SIGKILL, child.stderr.read().decode()
    (path,) = (tmp_path / "runs").iterdir()
    assert not (path / "rounds/01/scores.json").exists()
    loop.run(resume=path)
    differ = {"config.toml", "events.jsonl", "report.html"}  # where it lies, times
    assert listing(path) == listing(whole.path)
    for name in sorted(n for n in listing(path) if Path(n).name not in differ):
        assert content(path / name) == content(whole.path / name), name


def listing(path):
    return {str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()}


def content(path):
    """What a file says; of a summary, what is no matter of the clock or of the process."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as f:
            return f.metadata(), {k: f.get_tensor(k).tolist() for k in f.keys()}  # noqa: SIM118
    if path.name == "summary.json":
        return {k: v for k, v in read(path).items() if k not in ("seconds", "peak_memory_gb")}
    if path.name == "manifest.json":
        return {
            k: v for k, v in read(path).items() if k != "files"
        }  # config.toml's hash: it says where it lies
    return path.read_bytes()


def test_a_finished_run_is_shown_and_not_touched(whole, capsys, monkeypatch):
    monkeypatch.setattr("steer_heal_love.ground.models.load", None)
    before = {name: (whole.path / name).read_bytes() for name in listing(whole.path)}
    cli.main(["run", "--resume", str(whole.path)])
    said = capsys.readouterr()
    assert "already finished" in said.err and "trait_shift" in said.out
    assert before == {name: (whole.path / name).read_bytes() for name in listing(whole.path)}


def test_the_peak_is_that_of_every_sitting(tmp_path):
    folder = files.RunFolder(tmp_path)
    assert folder.peak_memory_gb() == 0.0 and not folder.ended
    for peak in (2.5, 1.3):
        folder.event("memory", peak_memory_gb=peak)
    assert folder.peak_memory_gb() == 2.5


def test_steps_are_told_by_round(whole):
    told = {step.label for step in whole.steps}
    for number in range(2):
        assert {f"round {number}: heal", f"round {number}: evaluate healed"} <= told
    assert "evaluate base" in told


def test_a_loop_that_gains_nothing_stops_and_a_resumed_one_too(tiny_load, tmp_path):
    """A learning rate of next to nothing: no gain, so that the third round is never begun."""
    little = {"instruments": ["probes", "neutral"], "transfer": "off", "nulls": False, "wordings": False}
    still = SETTINGS | {
        "rounds": 3,
        "patience": 1,
        "heal": SETTINGS["heal"] | {"lr": 1e-9},
        "eval": SETTINGS["eval"] | little,
    }
    run = loop.run(out=str(tmp_path), **still)
    log = (run.folder.path / "events.jsonl").read_text().splitlines()
    (stopped,) = (e for e in map(json.loads, log) if e["event"] == "stop")
    assert stopped["round"] == 1 and stopped["reason"].startswith(
        "no gain that can be told from zero in 1 rounds"
    )
    assert run.summary["rounds"] == 2 and not (run.folder.path / "rounds/02").exists()
    assert loop.run(resume=run.folder.path).summary["rounds"] == 2
    assert "no gain that can be told" in (run.folder.path / "report.html").read_text()


def test_ctrl_c_prints_the_command_that_goes_on(tiny_load, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cfg = override(config.RunConfig(), SETTINGS | {"rounds": 1, "out": "my runs"})
    files.save_config(override(cfg, {"eval": {"instruments": ("probes",)}}), tmp_path / "c.toml")
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, "evals.measure", tmp_path / "my runs", "rounds/00/healing.json", KeyboardInterrupt)
        with pytest.raises(SystemExit) as e:
            cli.main(["run", "--config", "c.toml"])
    said = capsys.readouterr().err
    assert e.value.code == 130 and said.startswith("interrupted") and "Traceback" not in said
    (path,) = (tmp_path / "my runs").iterdir()
    command = shlex.split(said.partition("to go on: ")[2])
    assert command == ["shl", "run", "--resume", str(path.relative_to(tmp_path))]
    cli.main(command[1:])
    assert read(path / "summary.json")["rounds"] == 1


def test_ctrl_c_before_there_is_a_run_says_no_more(monkeypatch, capsys):
    def stop(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("steer_heal_love.ground.models.load", stop)
    for argv, told in [
        (["run"], ""),
        (["compare"], "; everything up to the last finished step is kept; to go on: the same shl compare"),
    ]:
        with pytest.raises(SystemExit) as e:
            cli.main(argv)
        assert e.value.code == 130 and capsys.readouterr().err == f"interrupted{told}\n"


def test_the_teacher_is_the_student_moved_by_what_steering_adds_and_its_opposite_takes(model, tok, tmp_path):
    """Logits l₀ + g/2·(l₊ − l₋) at the dose asked for, whatever dose a text had; the opposite vector mirrors them in l₀;
    at dose 0 the teacher is the student."""
    g = torch.Generator().manual_seed(0)
    vector = Vector({1: torch.randn(model.config.hidden_size, generator=g)})
    used = [Completion("p", Tokens((1, 5, 7), (9, 4, 3)[:n]), "", 0.1 * n, ended=True) for n in (3, 2)]
    cfg = override(presets.preset("cpu"), {"heal": {"teacher": 3.0}})
    r = Run(cfg, load_persona("love"), model, tok, files.RunFolder(tmp_path), base=Base())

    def logits(dose: float) -> list[torch.Tensor]:
        with vector(model, dose), torch.no_grad():
            return [
                model(torch.tensor([c.tokens.prompt + c.tokens.answer])).logits[0, 2:-1].double()
                for c in used
            ]

    read = lambda states: [model.lm_head(h).detach().double() for h in states]
    found, mirrored = (read(steps.teacher_states_of(r, used, v, 0.5)) for v in (vector, -vector))
    for ours, other, plain, pos, neg in zip(
        found, mirrored, logits(0.0), logits(0.5), logits(-0.5), strict=True
    ):
        torch.testing.assert_close(ours, plain + 1.5 * (pos - neg), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(ours + other, 2 * plain, atol=1e-4, rtol=1e-4)
        assert (ours - plain).abs().max() > 0.01
    for ours, plain in zip(read(steps.teacher_states_of(r, used, vector, 0.0)), logits(0.0), strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)


def after_round_0(whole, to):
    """A copy of the unbroken run as it was when its second round began."""
    shutil.copytree(
        whole, to, ignore=shutil.ignore_patterns("01", "summary.json", "report.html", "trajectory.png")
    )
    shutil.rmtree(to / "adapter")
    log = (whole / "events.jsonl").read_text().splitlines(keepends=True)
    second = next(i for i, line in enumerate(log) if "rounds/01" in line)
    (to / "events.jsonl").write_text("".join(log[:second]))
    return to


def test_a_round_that_diverges_keeps_the_one_before(whole, tiny_load, tmp_path, monkeypatch, capsys):
    """The second round's teacher is not a number, and so is the loss: exit 3, summary and adapter of the first."""
    path = after_round_0(whole.path, tmp_path / "run")
    real = steps.teacher_states_of
    poisoned = lambda r, *args: [h * (math.nan if r.history else 1.0) for h in real(r, *args)]
    monkeypatch.setattr(steps, "teacher_states_of", poisoned)
    with pytest.raises(SystemExit) as e:
        cli.main(["run", "--resume", str(path)])
    said = capsys.readouterr().err
    assert e.value.code == 3 and "stopped: round 1, step 0" in said and "heal.lr" in said
    summary = read(path / "summary.json")
    assert summary["rounds"] == 1 and summary["stages"] == read(whole.path / "summary.json")["stages"][:4]
    kept, first = bake.load_peft(path / "adapter"), bake.stack(whole.run.history[:1])
    assert kept.factors.keys() == first.factors.keys()
    for name, factors in first.factors.items():
        assert all(torch.equal(*pair) for pair in zip(kept.factors[name], factors, strict=True))
    assert listing(path / "rounds/01") == {"vector.safetensors", "completions.jsonl"}
    events = [e["event"] for e in records.read_jsonl(path / "events.jsonl")]
    assert "diverged" in events and "end" not in events
    assert all(hooks_of(m) == 0 for m in tiny_load)


def test_resuming_a_finished_run_makes_nothing_anew(whole, tiny_load):
    def stamps():
        return {p: p.stat().st_mtime_ns for p in (whole.path / "rounds").rglob("*") if p.is_file()}

    before, summary = stamps(), read(whole.path / "summary.json")
    loop.run(resume=whole.path)
    assert stamps() == before
    assert read(whole.path / "summary.json")["stages"] == summary["stages"]


def test_other_weights_are_refused_on_resume(whole, tok, monkeypatch):
    other = build_model(len(tok), tok.eos_token_id, seed=1)
    monkeypatch.setattr("steer_heal_love.ground.models.load", lambda _name, **_kwargs: (other, tok))
    with pytest.raises(UserError, match="weights"):
        loop.run(resume=whole.path)


def test_a_starved_run_says_so_and_leaves_a_summary(tiny_load, tmp_path):
    starving = SETTINGS | {
        "filter": {"checks": ["length"], "calibration": 2},
        "generate": {"prompts": 2, "max_new_tokens": 2},
        "walk": {"doses": 2, "floor": 0.2},
    }
    with pytest.raises(Starved, match="round 0"):
        loop.run(out=str(tmp_path), **starving)
    (path,) = tmp_path.iterdir()
    summary = read(path / "summary.json")
    assert summary["rounds"] == 0
    assert {g["gate"]: g["verdict"] for g in summary["gates"]}["filter"] == "fail"
    made = files.load_completions(path / "rounds/00/completions.jsonl")
    assert made and min(c.dose for c in made) >= 0.2
    assert records.read_jsonl(path / "events.jsonl")[-1]["event"] != "end"
    assert all(hooks_of(m) == 0 for m in tiny_load)


def test_wrong_settings_are_told_all_at_once_and_nothing_is_written(tiny_load, tmp_path):
    with pytest.raises(UserError) as e:
        loop.run(out=str(tmp_path), persona="love", nonsense=1, heal={"rankk": 2}, walk=3)
    assert all(w in str(e.value) for w in ("nonsense", "heal.rankk", "walk: expected a table"))
    with pytest.raises(UserError) as e:
        loop.run(out=str(tmp_path), rounds=0, walk={"survival": 2.0})
    assert "rounds" in str(e.value) and "survival" in str(e.value)
    with pytest.raises(UserError, match="love"):
        loop.run(out=str(tmp_path), persona="lov")
    assert list(tmp_path.iterdir()) == [] and tiny_load == []


def test_mistyped_settings_are_told_all_at_once():
    with pytest.raises(UserError) as e:
        override(config.RunConfig(), {"rounds": True, "heal": {"lr": "high", "epochs": 1.5}})
    assert all(w in str(e.value) for w in ("rounds", "heal.lr", "heal.epochs"))


def test_a_subset_of_instruments_runs_and_the_anchor_can_be_left_out(tiny_load, tmp_path):
    """What isn't asked is in no stage, and without anchor answers nothing holds, scales or validates the update."""
    without = SETTINGS["heal"] | {"anchor": 0.0, "anchor_prompts": 0}
    asked = SETTINGS["eval"] | {"instruments": ["probes"], "transfer": "off"}
    run = loop.run(out=str(tmp_path), **(SETTINGS | {"rounds": 1, "heal": without, "eval": asked}))
    for stage in run.stages:
        assert stage.scores["trait"].n == SETTINGS["eval"]["probes"] and not stage.samples
        assert not {"neutral_kl", "own_excess", "mfv.Care", "capability"} & set(stage.scores)
    healing = read(run.folder.path / "rounds/00/healing.json")
    assert healing["scale"] == 1.0 and all(v["anchor_kl"] is None for v in healing["validation"])
    assert not any(step.get("anchor") for step in healing["steps"])


def test_a_run_without_own_samples_ends(tiny_load, tmp_path):
    few = SETTINGS | {"rounds": 1, "eval": {**SETTINGS["eval"], "sample_prompts": 0}}
    scores = loop.run(out=str(tmp_path), **few).stages[-1].scores
    assert scores["own_excess"].n == 0 and scores["trait_shift"].n == 4


def test_no_sample_prompts_means_none(tiny, persona):
    subject = evals.Subject(tiny.model, tiny.tok, persona, config.EvalConfig(sample_prompts=0), [])
    assert evals.sample_prompts(subject) == []


@pytest.mark.parametrize("layers", [[0.4], ["a", "b"], [0.1, 0.2, 0.3]])
def test_a_malformed_band_of_layers_is_a_user_error(layers):
    with pytest.raises(UserError, match="vector.layers"):
        override(config.RunConfig(), {"vector": {"layers": layers}}).check()


def test_other_questions_than_a_run_began_with_are_refused_or_told(whole, tmp_path):
    own = tmp_path / "bank.jsonl"
    own.write_text("one")
    cfg = replace(whole.run.config, eval=replace(whole.run.config.eval, vignette_bank=str(own)))
    data = records.read_json(whole.path / "manifest.json")["data"]
    said: list[str] = []
    for vignettes, others in (
        (records.hash_text("one"), {}),
        (records.hash_text("two"), {}),
        (None, {"capability": "x"}),
    ):
        had = data | {"vignette_bank": vignettes or records.hash_text("one")} | others
        records.write_json(tmp_path / "manifest.json", {"data": had})
        if vignettes == records.hash_text("two"):
            with pytest.raises(UserError, match=r"vignette_bank.*is not what it was"):
                session.same_questions(cfg, tmp_path, said.append)
        else:
            session.same_questions(cfg, tmp_path, said.append)
    assert len(said) == 1 and "capability" in said[0]
