"""A run as logs of Inspect, read back by Inspect, and Inspect's tasks on our models. Needs the extra `inspect`.

The models that are served are tried without it.
"""

from __future__ import annotations

import math

import pytest
import torch

from steer_heal_love import bake, loop, report, serve
from steer_heal_love.ground.chat import prompt_ids
from steer_heal_love.ground.decode import sample
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.report.read import read
from test_loop import SETTINGS
from tiny_model import build_model, hooks_of

SMALL = {k: v for k, v in SETTINGS.items() if k != "out"} | {"rounds": 1}
TALK = [("user", "Where is the cat?"), ("assistant", "On the mat."), ("user", "And the other?")]


def inspect_ai():
    return pytest.importorskip(
        "inspect_ai", reason="the extra `inspect` is not installed: pip install 'steer-heal-love[inspect]'"
    )


@pytest.fixture(scope="module")
def run(tok, tmp_path_factory):
    """A run of one round on the tiny model, which stays what `load` gives."""
    with pytest.MonkeyPatch.context() as patch:
        model = build_model(len(tok), tok.eos_token_id)
        patch.setattr("steer_heal_love.ground.models.load", lambda _name, **_kwargs: (model, tok))
        done = loop.run(None, out=str(tmp_path_factory.mktemp("inspect") / "runs"), **SMALL)
        yield done.folder.path, model


def test_every_stage_becomes_a_log_with_its_samples_scores_and_means(run, tmp_path):
    inspect_ai()
    from inspect_ai.log import list_eval_logs, read_eval_log

    path, _ = run
    record = read(path)
    files = report.write_inspect(path, tmp_path)
    assert len(files) == len(record.stages) == len(list_eval_logs(str(tmp_path)))
    logs = [read_eval_log(str(file)) for file in files]
    assert len({log.eval.task_id for log in logs}) == len(logs), "the viewer lists one log a task"
    for stage, log in zip(record.stages, logs, strict=True):
        means = {s.name: s.metrics["mean"].value for s in log.results.scores}
        assert {tuple(s.metrics) for s in log.results.scores} <= {("mean", "lo", "hi")}
        means |= log.eval.metadata["means without an interval"]
        assert means == {k: s.mean for k, s in stage.scores.items() if math.isfinite(s.mean)}
        own = [s for s in log.samples if s.id.startswith("own-")]
        assert [s.output.completion for s in own] == [s["text"] for s in stage.samples]
        probes = [s for s in log.samples if s.id.startswith("probe-")]
        asked = [p["question"] for p in record.persona["probes"]]
        assert [s.input for s in probes] == asked[: len(probes)] and probes
        assert [s.scores["trait"].value for s in probes] == stage.items["trait"]
        assert (log.eval.metadata["stage"], log.eval.metadata["round"]) == (stage.stage, stage.round)
    assert report.write_inspect(path, tmp_path) == files, "written again, a log takes its own place"


def test_without_the_extra_the_message_says_how_to_get_it(run, tmp_path, monkeypatch):
    import sys

    for name in ("inspect_ai", "inspect_ai.log"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"steer-heal-love\[inspect\]"):
        report.write_inspect(run[0], tmp_path / "logs")
    assert not (tmp_path / "logs").exists()


def test_an_inspect_task_runs_on_a_served_model_and_its_log_says_what_it_answered(run, tmp_path):
    inspect = inspect_ai()
    from inspect_ai.dataset import Sample
    from inspect_ai.model import GenerateConfig, get_model
    from inspect_ai.scorer import includes
    from inspect_ai.solver import generate

    import steer_heal_love.inspect_provider  # noqa: F401  (an installed package is found by its entry point)

    path, model = run
    for who in ("base", "steered", "healed"):
        served = serve.served(str(path), who=who)
        answering = get_model(f"shl/{path}", who=who, memoize=False)
        task = inspect.Task(
            dataset=[Sample(input=TALK[0][1], target="mat")], solver=generate(), scorer=includes()
        )
        (log,) = inspect.eval(
            task,
            model=answering,
            log_dir=str(tmp_path),
            display="none",
            max_tokens=6,
            temperature=0.0,
            seed=1,
        )
        assert log.status == "success", log.error
        said = served.reply(TALK[:1], tokens=6, temperature=0.0, seed=1)
        assert log.samples[0].output.completion == said.text
        assert log.samples[0].output.usage.output_tokens == said.written
    assert hooks_of(model) == 0
    with pytest.raises(UserError, match="unknown model arguments whom"):
        get_model(f"shl/{path}", whom="base", memoize=False)
    assert GenerateConfig


def test_epochs_are_other_draws_and_what_is_not_heeded_is_refused(run, tmp_path):
    inspect = inspect_ai()
    from inspect_ai.dataset import Sample
    from inspect_ai.model import get_model
    from inspect_ai.scorer import includes
    from inspect_ai.solver import generate

    task = inspect.Task(
        dataset=[Sample(input=TALK[0][1], target="mat")], solver=generate(), scorer=includes()
    )
    how = {"log_dir": str(tmp_path), "display": "none", "max_tokens": 8, "temperature": 1.0}
    said = []
    for seed in ({}, {"seed": 3}):
        model = get_model(f"shl/{run[0]}", who="base", memoize=False)
        (log,) = inspect.eval(task, model=model, epochs=4, **how, **seed)
        said.append({s.output.completion for s in log.samples})
    assert len(said[0]) > 1 and len(said[1]) == 1, "as many seeds as epochs, or the one that was asked for"
    (log,) = inspect.eval(task, model=model, top_p=0.5, **how)
    assert log.status == "error" and "top_p" in log.error.message


def test_a_served_model_answers_as_its_weights_do(run):
    """Greedy answers are those of the same model put on by hand, earlier turns and a system message included."""
    path, model = run
    tok = serve.served(str(path)).tok
    adapter = bake.load_peft(path / "adapter")
    ids = tuple(prompt_ids(tok, TALK[2][1], "Be brief.", shots=((TALK[0][1], TALK[1][1]),)))
    how = {"ends": frozenset(), "max_new_tokens": 8, "seed": 0, "temperature": 0.0}
    plain = sample(model, [ids], **how)[0]
    with adapted(model, adapter.factors, adapter.scaling * 2):
        twice = sample(model, [ids], **how)[0]
    turns = [("system", "Be brief."), *TALK]
    for kwargs, expected in (({"who": "base"}, plain), ({"strength": 2.0}, twice)):
        found = serve.served(str(path), **kwargs).reply(turns, tokens=8, temperature=0.0)
        text = str(tok.decode(expected, skip_special_tokens=True)).strip()
        assert text.startswith(found.text) and found.read == len(ids)
    assert hooks_of(model) == 0


def test_the_prompted_model_is_told_unless_the_conversation_tells_it(run):
    path, _ = run
    served = serve.served(str(path), who="prompted")
    told = serve.rendered(served.tok, TALK[:1], served.system)
    assert told == tuple(prompt_ids(served.tok, TALK[0][1], served.system)) and "You are" in served.system
    own = serve.rendered(served.tok, [("system", "Be brief."), *TALK[:1]], served.system)
    assert own == tuple(prompt_ids(served.tok, TALK[0][1], "Be brief."))


@pytest.mark.parametrize("turns", [[], TALK[:2], TALK[1:], [("tool", "x")], [("user", "a"), ("user", "b")]])
def test_turns_in_another_order_are_refused(run, turns):
    served = serve.served(str(run[0]), who="base")
    with pytest.raises(UserError, match="the user last"):
        served.reply(turns, tokens=2)


def test_an_adapter_is_served_beside_its_base_and_what_no_one_has_is_told(run, tmp_path):
    path, model = run
    tok = serve.served(str(path), who="base").tok
    alone = serve.served(str(path / "adapter"), base="tiny", strength=0.0)
    assert alone.reply(TALK, tokens=6, temperature=0.0) == serve.served(str(path), who="base").reply(
        TALK, tokens=6, temperature=0.0
    )
    with pytest.raises(UserError, match="who: one of base, prompted"):
        serve.served(str(path), who="angry")
    with pytest.raises(UserError, match="strength: from -1 to 2"):
        serve.served(str(path), strength=5.0)
    with pytest.raises(UserError, match="answers as it is"):
        serve.served("some/model", who="steered")
    assert serve.served("some/model").model is model and tok is not None and torch.is_grad_enabled()
