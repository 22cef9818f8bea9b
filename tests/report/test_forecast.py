"""What is said while a run goes on: how long it will take, what a step does, one question's answers, what was left out."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import get_args

import pytest
from rich.console import Console

from steer_heal_love import presets, report
from steer_heal_love.config import RunConfig
from steer_heal_love.ground import records
from steer_heal_love.nouns import Preview
from steer_heal_love.report.bars import DOES, does
from steer_heal_love.report.forecast import Forecast, name, plan
from steer_heal_love.report.read import read
from steer_heal_love.report.scope import left_out, together


def labels(cfg: RunConfig) -> list[str]:
    """What a run calls its steps, in its order."""
    before = [
        "load smollm2",
        "vector",
        "first look",
        "base: anchor",
        "base: neutral",
        "base: calibration",
        "filter",
        "base: states",
        *cfg.eval.wordings * ["choose the prompt's wording"],
        "nulls",
        "evaluate base",
        "evaluate prompt",
    ]
    walked = ["generate at 0.1–0.3", "filter"] * cfg.walk.passes
    each = [*walked, "teacher", "heal", "trust region", "look", "evaluate steered", "evaluate healed"]
    each += ["transfer"] * (cfg.eval.transfer != "off")
    rounds = [f"round {n}: {s}" for n in range(cfg.rounds) for s in (["vector", *each] if n else each)]
    return before + rounds


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_a_machine_as_fast_as_foreseen_is_foreseen_to_the_end(preset):
    cfg = presets.preset(preset)
    forecast, costs, parts = Forecast(cfg), plan(cfg), 2 * cfg.walk.passes
    of = lambda label: costs[name(label)] / (parts if name(label)[1] == "walk" else 1)
    steps = labels(cfg)
    assert forecast.seconds_left() is None, "nothing has been learned yet"
    for i, label in enumerate(steps):
        forecast.began(label)
        forecast.ended(label, of(label) / 500)
        assert forecast.seconds_left() == pytest.approx(sum(map(of, steps[i + 1 :])) / 500, abs=1e-6), label
    assert {step for step in costs if costs[step]} <= set(map(name, steps))


def test_a_resumed_run_counts_only_what_is_to_come():
    cfg = RunConfig()
    forecast, costs = Forecast(cfg), plan(cfg)
    forecast.began("round 2: heal")
    forecast.ended("round 2: heal", costs[2, "heal"])
    later = [costs[2, s] for s in ("trust region", "look", "evaluate steered", "evaluate healed", "transfer")]
    assert forecast.seconds_left() == pytest.approx(sum(later))


def test_every_step_is_told_in_plain_words_and_an_unknown_one_has_none():
    said = {does(label) for label in labels(RunConfig())}
    assert said == {DOES[step] for step in DOES} and "" not in said
    assert does("round 1: something new") == does("method sft: 3") == ""


def test_a_log_has_a_line_as_a_step_begins_and_one_as_it_ends_with_the_time_left():
    out = io.StringIO()
    with report.progress(Console(file=out, width=80), RunConfig()) as track, track("vector", 3) as advance:
        assert len(out.getvalue().splitlines()) == 1
        advance(3)
    began, ended = out.getvalue().splitlines()
    assert began == f"vector: {DOES['vector']}"
    assert ended.split()[0] == "vector" and ended.endswith("left")


def test_a_step_that_is_stopped_says_nothing_of_what_is_left():
    out = io.StringIO()
    with (
        pytest.raises(KeyError),
        report.progress(Console(file=out, width=80), RunConfig()) as track,
        track("vector", 3),
    ):
        raise KeyError
    assert "stopped after" in out.getvalue() and "left" not in out.getvalue()


def test_an_answer_on_the_way_cannot_move_the_cursor_or_style_the_screen():
    out = io.StringIO()
    bad = Preview("base", -1, "Why?\x1b[2J", "[bold]no\x1b]0;x\x07\nnew line", None)
    Console(file=out, width=60, force_terminal=True, color_system=None).print(report.preview(bad, 60))
    assert "\x1b" not in out.getvalue() and "\x07" not in out.getvalue()
    assert "[bold]no" in out.getvalue() and "Why?" in out.getvalue()


def test_a_short_run_says_what_it_left_out_how_wide_it_is_and_the_command_of_the_study(fabricate, tmp_path):
    full = fabricate("full", rounds=1)
    assert left_out(read(full)) == []
    short = fabricate("short", rounds=1)
    text = (short / "config.toml").read_text()
    for name_, n in (("probes", 12), ("neutral_prompts", 24)):
        before = getattr(RunConfig().eval, name_)
        text = text.replace(f"\n{name_} = {before}\n", f"\n{name_} = {n}\n")
    (short / "config.toml").write_text(
        text.replace("instruments = []", 'instruments = ["probes", "neutral"]')
    )
    said = " ".join(left_out(read(short)))
    assert (
        "12 of 48 held-out probes" in said
        and "2.0 times on the trait" in said
        and "2.0 times on drift" in said
    )
    assert "Not run: whether answers stay with their questions, the moral vignettes, the panel" in said
    assert said.endswith("shl run --persona love --model smollm2 --seed 0")
    report.write([short], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "12 of 48 held-out probes" in page


def test_a_persona_with_few_probes_is_told_as_many_as_were_measured(fabricate):
    run = read(fabricate("few", rounds=1))
    first = replace(run.stages[0], items=run.stages[0].items | {"trait": [0.0] * 8})
    said = " ".join(left_out(replace(run, stages=[first, *run.stages[1:]])))
    assert "8 of 48 held-out probes, all that the persona has" in said and "2.4 times on the trait" in said


def test_the_page_says_that_the_run_goes_on_until_it_has_ended(fabricate, tmp_path):
    run = fabricate(rounds=1)
    summary = records.read_json(run / "summary.json")
    for goes_on in (True, False):
        records.write_json(run / "summary.json", summary | {"goes_on": goes_on})
        report.write([run], tmp_path / "report.html")
        page = (tmp_path / "report.html").read_text()
        assert ("This run is not finished" in page) == ('http-equiv="refresh"' in page) == goes_on


def test_parts_are_joined_as_one_says_them():
    assert [together(list(p)) for p in ("a", "ab", "abc")] == ["a", "a and b", "a, b and c"]


def test_every_preset_can_be_named_and_says_what_it_is_for():
    from steer_heal_love.cli.runs import Preset

    assert get_args(Preset) == ("auto", *presets.PRESETS)
    assert presets.ABOUT.keys() == presets.PRESETS.keys()
    for preset in presets.PRESETS:
        presets.preset(preset).check()
