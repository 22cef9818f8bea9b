"""Every command and every line of Python in the README runs, on the tiny model with small settings."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from steer_heal_love import cli, config
from test_loop import SETTINGS
from tiny_model import build_model

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SMALL = {k: v for k, v in SETTINGS.items() if isinstance(v, dict)} | {"coherence_floor": 100.0}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


COMMANDS = [line for block in blocks("console") for line in block.splitlines() if line.strip()]


@pytest.fixture
def small(tok, monkeypatch, tmp_path):
    """An empty folder to work in, the tiny model for every name, small settings on every device."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "steer_heal_love.ground.models.load",
        lambda _name, **_kwargs: (build_model(len(tok), tok.eos_token_id), tok),
    )
    monkeypatch.setattr("steer_heal_love.load", lambda _name: (build_model(len(tok), tok.eos_token_id), tok))
    monkeypatch.setattr(config, "PRESETS", {"cpu": SMALL, "gpu": SMALL})
    return tmp_path


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_make_knows_the_target(command):
    subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, check=True, capture_output=True)


def test_the_commands_run_in_order(small):
    shl = [shlex.split(c)[1:] for c in COMMANDS if c.startswith("shl ")]
    assert {"run", "list", "doctor", "report", "eval", "export", "vector"} <= {c[0] for c in shl}
    for words in shl:
        runs = sorted(Path("runs").glob("*")) if Path("runs").is_dir() else []
        cli.dispatch([w.replace("runs/RUN", str(runs[0])) if "RUN" in w else w for w in words])
    assert Path("report.html").is_file()
    assert Path("merged/model.safetensors").is_file()
    assert Path("love.safetensors").is_file()
    assert Path("scores.json").is_file()


def test_the_python_runs(small, capsys):
    (code,) = blocks("python")
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)  # our own README, not model output
    assert names["run"].summary["rounds"] == 3
