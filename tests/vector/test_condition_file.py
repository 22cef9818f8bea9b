"""A condition's file, its command, and a run that steers on the prompts that meet it."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file
from tests.test_loop import SETTINGS
from tests.tiny_model import build_model

from steer_heal_love import cli, conditions, loop
from steer_heal_love.cells import keys
from steer_heal_love.config import ConditionConfig
from steer_heal_love.ground.chat import prompt_ids
from steer_heal_love.ground.condition import Condition
from steer_heal_love.ground.errors import UserError
from steer_heal_love.persona import load as load_persona
from steer_heal_love.vector import condition_file
from steer_heal_love.vector.conditional import conditioned

ONE_ROUND = SETTINGS | {
    "rounds": 1,
    "eval": SETTINGS["eval"]
    | {"instruments": ["probes", "samples"], "transfer": "off", "nulls": False, "wordings": False},
}
ABOVE = "steer where the cosine is above the threshold"
HEADER = condition_file.SAYS | {"operation": ABOVE, "layer": "2", "threshold": "0.25", "meta": "{}"}
TENSORS = {"direction": torch.ones(32), "mean": torch.zeros(32)}


@pytest.fixture
def net(tok, monkeypatch):
    made = build_model(len(tok), tok.eos_token_id)
    monkeypatch.setattr("steer_heal_love.ground.models.load", lambda _name, **_how: (made, tok))
    monkeypatch.setattr("steer_heal_love.report.write", lambda _runs, _to, **_: None)
    return made


def put(folder, tensors=TENSORS, **header):
    told = {k: v for k, v in {**HEADER, **header}.items() if v is not None}
    save_file({k: t.clone() for k, t in tensors.items()}, str(folder / "c.safetensors"), metadata=told)
    return folder / "c.safetensors"


@pytest.mark.parametrize("below", [False, True])
@pytest.mark.parametrize("threshold", [0.1, -1 / 3, 1e-9])
def test_what_was_saved_is_loaded_to_the_bit(tmp_path, below, threshold):
    c = Condition(3, torch.randn(7), torch.randn(7), threshold, below)
    condition_file.save(c, tmp_path / "c.safetensors", {"steer": "x"})
    again, meta = condition_file.read(tmp_path / "c.safetensors")
    assert torch.equal(again.direction, c.direction) and torch.equal(again.mean, c.mean)
    assert (again.layer, again.threshold, again.below, meta) == (3, threshold, below, {"steer": "x"})
    assert condition_file.is_condition(tmp_path / "c.safetensors")


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"format": "steer-heal-love.condition.2"}, "format: expected 'steer-heal-love.condition.1'"),
        ({"format": "steer-heal-love.vector.1"}, "not a condition"),
        ({"operation": "add"}, "operation: expected"),
        ({"operation": None}, "operation"),
        ({"layer": "-1"}, "layer: expected"),
        ({"layer": "02"}, "layer"),
        ({"layer": "99999"}, "layer"),
        ({"layer": None}, "layer"),
        ({"threshold": "nan"}, "threshold: expected a number"),
        ({"threshold": "inf"}, "threshold"),
        ({"threshold": "1e999"}, "threshold"),
        ({"threshold": None}, "threshold"),
        ({"layer_numbering": "from 1"}, "layer_numbering"),
        ({"position": "all"}, "position"),
        ({"hook_point": "mlp"}, "hook_point"),
        ({"meta": None}, "meta: missing"),
        ({"treshold": "1"}, "did you mean 'threshold'"),
    ],
    ids=str,
)
def test_a_header_that_says_something_else_is_refused(tmp_path, header, words):
    with pytest.raises(UserError, match=words):
        condition_file.read(put(tmp_path, **header))


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"direction": torch.ones(3)}, "mean: missing"),
        (TENSORS | {"other": torch.ones(3)}, "unknown key 'other'"),
        (TENSORS | {"mean": torch.zeros(31)}, "widths differ"),
        (TENSORS | {"direction": torch.zeros(32)}, "length 0"),
        (TENSORS | {"direction": torch.full((32,), torch.nan)}, "not finite"),
        ({k: t[None] for k, t in TENSORS.items()}, "expected one vector"),
    ],
)
def test_tensors_that_are_no_condition_are_named(tmp_path, tensors, words):
    with pytest.raises(UserError, match=words):
        condition_file.read(put(tmp_path, tensors))


def test_below_is_met_by_exactly_the_other_prompts():
    above, below = (Condition(0, torch.ones(2), torch.zeros(2), 0.25, side) for side in (False, True))
    cosines = [-1.0, 0.0, 0.25, 0.26, 1.0]
    assert above.meets(cosines) == [False, False, False, True, True]
    assert below.meets(cosines) == [not met for met in above.meets(cosines)]


def test_the_threshold_is_a_quantile_of_the_first_kind_or_what_was_given(net, tok):
    cats = [
        f"The cat sat on the {w}" for w in ("mat", "loaf", "bread", "cat", "warm", "other", "mat", "bread")
    ]
    whys = [f"Why {w}?" for w in ("not", "alone", "they", "there", "time", "say", "not", "you")]
    how = {"steer": cats, "leave": whys, "layer": 2}
    half = conditioned(net, tok, cut="quantile", value=0.5, **how)
    assert half.steered.mean == 0.5 and half.steered.n == 4
    given = conditioned(net, tok, cut="threshold", value=0.125, **how)
    other = conditioned(net, tok, cut="threshold", value=0.125, below=True, **how)
    assert given.condition.threshold == 0.125 and other.steered.mean == 1 - given.steered.mean
    for wrong in ({"cut": "quantile", "value": 1.0}, {"cut": "threshold", "value": 2.0}, {"layer": 9}):
        with pytest.raises(UserError):
            conditioned(net, tok, **how | wrong)
    with pytest.raises(UserError, match="two kinds of prompts that differ"):
        conditioned(net, tok, cats, cats, layer=2)


def test_the_command_makes_one_and_inspect_reads_it(net, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cli.main(["vector", "condition", "--persona", "joy", "--model", "tiny", "--out", "c.safetensors"])
    found, meta = condition_file.read(tmp_path / "c.safetensors")
    assert found.layer == 2 and meta["steer"] == "prompts that draw out joy" and meta["held_out"] == [20, 20]
    cli.main(["vector", "inspect", "c.safetensors"])
    said = capsys.readouterr().out
    assert f"above {found.threshold:.4f}" in said and "steer: prompts that draw out joy" in said
    (tmp_path / "ours.txt").write_text(
        "\n".join(f"The cat sat on the {w}" for w in ("mat", "loaf", "bread", "cat"))
    )
    (tmp_path / "few.txt").write_text("Why not?\n\n")
    for argv, words in (
        (["--steer", "none.txt"], "none.txt"),
        (["--steer", "ours.txt", "--leave", "few.txt"], "at least 4 prompts"),
        (["--persona", "lave"], "lave"),
        (["--layer", "1.0"], "condition.layer"),
        (["--cut", "quantile"], "a quantile"),
    ):
        with pytest.raises(SystemExit) as e:
            cli.main(["vector", "condition", "--model", "tiny", "--out", "d.safetensors", *argv])
        assert e.value.code == 2 and words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "d.safetensors").exists()


def test_a_runs_text_is_steered_on_the_prompts_that_meet_its_condition_alone(net, tmp_path):
    run = loop.run(
        out=str(tmp_path), condition={"persona": "joy", "cut": "quantile", "value": 0.4}, **ONE_ROUND
    )
    base = run.folder.path / "base"
    met, condition = (
        set(json.loads((base / "meeting.json").read_text())),
        condition_file.read(base / "condition.safetensors")[0],
    )
    who = load_persona("love")
    every = {*who.elicit, *who.plain}
    assert met < every and len(met) >= conditions.LEAST_MEETING
    cosines = condition.cosines(net, [prompt_ids(run.tok, p) for p in sorted(every)])
    assert met == {p for p, m in zip(sorted(every), condition.meets(cosines), strict=True) if m}
    asked = {
        json.loads(line)["prompt"]
        for line in (run.folder.round(0) / "completions.jsonl").read_text().splitlines()
    }
    assert asked and asked <= met
    (told,) = [e for e in run.folder.event.read() if e["event"] == "condition"]
    assert (told["met"], told["of"]) == (len(met), len(every))


def test_a_runs_condition_that_fits_nothing_is_refused_before_anything_is_written(net, tmp_path):
    for c, words in (
        (Condition(40, torch.ones(32), torch.zeros(32), 0.0), "layers 0 to"),
        (Condition(1, torch.ones(8), torch.zeros(8), 0.0), "8 values"),
    ):
        condition_file.save(c, tmp_path / "c.safetensors")
        with pytest.raises(UserError, match=words):
            loop.run(
                out=str(tmp_path / "runs"), condition={"file": str(tmp_path / "c.safetensors")}, **ONE_ROUND
            )
    with pytest.raises(UserError, match="gone"):
        loop.run(
            out=str(tmp_path / "runs"), condition={"file": str(tmp_path / "gone.safetensors")}, **ONE_ROUND
        )
    assert not (tmp_path / "runs").exists()


def test_a_condition_that_hardly_any_training_prompt_meets_says_between_what_to_set_it(net, tmp_path):
    with pytest.raises(
        UserError, match="0 of the 80 training prompts of love meet it.*set condition.value between"
    ):
        loop.run(
            out=str(tmp_path), condition={"persona": "joy", "cut": "threshold", "value": 1.0}, **ONE_ROUND
        )


def test_a_cells_address_depends_on_what_the_condition_says_and_not_on_where_it_lies(tmp_path):
    for name, at in (("a", 0.1), ("b", 0.1), ("c", 0.2)):
        condition_file.save(Condition(1, torch.ones(4), torch.zeros(4), at), tmp_path / name)
    address = lambda **told: keys.of_condition(ConditionConfig(**told))
    a, b, c = (address(file=str(tmp_path / name)) for name in "abc")
    assert a == b != c and address() == "" and address(persona="joy") != address(persona="love")
    with pytest.raises(UserError, match="does not exist"):
        address(file=str(tmp_path / "d"))
