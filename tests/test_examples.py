"""The examples run, on the tiny model: what a newcomer copies first must not be broken."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from steer_heal_love import bake, presets
from test_loop import SETTINGS
from tiny_model import build_model

EXAMPLES = Path(__file__).parent.parent / "examples"
SHORT = 60
"""lines, at most"""


@pytest.fixture
def tiny_everywhere(tok, monkeypatch, tmp_path):
    """An empty folder to work in, and the tiny model for every name that is loaded."""
    monkeypatch.chdir(tmp_path)
    load = lambda _name, **_kwargs: (build_model(len(tok), tok.eos_token_id), tok)
    monkeypatch.setattr("steer_heal_love.ground.models.load", load)
    monkeypatch.setattr("steer_heal_love.load", load)
    return tmp_path


def example(name: str):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.name)
def test_an_example_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= SHORT


def test_steer_and_look_answers_at_every_dose(tiny_everywhere, capsys):
    script = example("steer_and_look")
    answers = script.main(contexts=4, tokens=6)
    assert list(answers) == script.DOSES
    assert len(set(answers.values())) > 1, "steering changes what the model says"
    assert script.QUESTION in capsys.readouterr().out


def test_one_round_by_hand_leaves_an_adapter_that_does_something(tiny_everywhere, capsys):
    folder = example("heal_one_round").main(out="healed", prompts=4, contexts=4, epochs=1)
    adapter = bake.load_peft(folder)
    assert not bake.is_nothing(adapter)
    assert "healed:" in capsys.readouterr().out


def test_certify_tells_what_somebody_elses_adapter_did(
    tiny_everywhere, model, random_adapter, monkeypatch, capsys
):
    small = {k: v for k, v in SETTINGS.items() if isinstance(v, dict)}
    monkeypatch.setattr(presets, "PRESETS", {"cpu": small, "gpu": small})
    bake.save_peft(random_adapter(model, 1), Path("theirs"), base_model="tiny")
    options = "--model other --device cpu --instrument neutral probes"
    scores = example("certify_adapter").main("theirs", *options.split())
    assert scores["neutral_kl"]["mean"] > 0, "a random update drifts"
    shown = capsys.readouterr().out
    assert "drift on neutral prompts" in shown
    assert "trait, held-out probes" in shown


def test_the_notebook_runs_from_its_first_cell_to_its_last(tiny_everywhere, capsys):
    book = json.loads((EXAMPLES / "steer_and_look.ipynb").read_text(encoding="utf-8"))
    names: dict = {}
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            code = (
                "".join(cell["source"])
                .replace("[:32]", "[:4]")
                .replace("max_new_tokens=40", "max_new_tokens=6")
            )
            exec(compile(code, "steer_and_look.ipynb", "exec"), names)  # our own notebook, not model output
    assert "dose 0.8" in capsys.readouterr().out
