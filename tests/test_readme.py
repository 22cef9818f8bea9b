"""Every command of the README and of the guide's command page runs, and every line of Python in the README, on the
tiny model with small settings."""

from __future__ import annotations

import re
import shlex
import subprocess
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
import torch

from steer_heal_love import cli, presets
from steer_heal_love.executors import Asked, Ended, attempted, executors
from steer_heal_love.ground.errors import UserError
from steer_heal_love.persona import path as persona_path
from tiny_model import build_model
from tiny_run import DEPTH, SETTINGS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHOWN = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8") + README
"""the page that shows every command, in an order in which they run, and the README"""
SMALL = {k: v for k, v in SETTINGS.items() if isinstance(v, dict)} | {"coherence_floor": 100.0, "rounds": 1}
SHORT = {
    "compare": ["--seeds", "1", "--methods", "prompt"],
    "certify": ["--no-others"],
    "matrix": ["--persona", "love"],
}
"""what is said besides, by command, where all of it would take long; each seed and method has its tests elsewhere"""

ELSEWHERE = {"persona draft", "persona import", "vector sweep"}
"""what needs a model that can write, another project's file, or long; each has tests of its own"""


def blocks(language: str, text: str = SHOWN) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.S)


COMMANDS = [line for block in blocks("console") for line in block.splitlines() if line.strip()]

INLINE = [
    " ".join(c.split()) for c in re.findall(r"`(shl [^`]+)`", re.sub(r"```.*?```", "", SHOWN, flags=re.S))
]


@pytest.fixture
def small(tok, monkeypatch, tmp_path, undrawn):
    """An empty folder to work in, the tiny model for every name, small settings on every device."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "steer_heal_love.ground.models.load",
        lambda _name, **_kwargs: (build_model(len(tok), tok.eos_token_id, depth=DEPTH), tok),
    )
    monkeypatch.setattr(
        "steer_heal_love.load", lambda _name: (build_model(len(tok), tok.eos_token_id, depth=DEPTH), tok)
    )
    monkeypatch.setattr(presets, "PRESETS", {"cpu": SMALL, "gpu": SMALL})
    executors.get("local")  # found before the dictionary is replaced
    monkeypatch.setattr(executors, "_items", {**executors._items, "local": Here})
    return tmp_path


class Here:
    """Works in this process, which has the tiny model."""

    def __init__(self, asked: Asked):
        self.slots, self.threads, self.over = 1, 0, []

    def submit(self, name, work):
        self.over.append(Ended(name, "failed" if (why := attempted(work)) else "done", why))

    def ended(self, _wait):
        over, self.over = self.over, []
        return over

    def close(self):
        pass


def sweep_file() -> str:
    """The guide's own, with fewer values on its axes."""
    page = (ROOT / "docs" / "many-runs.md").read_text(encoding="utf-8")
    text = next(block for block in blocks("toml", page) if "[axes]" in block)
    fewer = {"method": '["prompt"]', "seed": "[0]", "budgets": "[1e-4]", "rounds": "1"}
    for name, values in fewer.items():
        text, found = re.subn(rf"(?m)^{name} = .*$", f"{name} = {values}", text)
        assert found == 1, name
    return text


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_make_knows_the_target(command):
    subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, check=True, capture_output=True)


def test_the_commands_run_in_order(small):
    Path("mine.toml").write_bytes(persona_path("love").read_bytes())
    Path("sweep.toml").write_text(sweep_file(), encoding="utf-8")
    # A command named in passing, such as `shl vector convert`, begins one that is given whole.
    inline = [c for c in INLINE if not any(whole.startswith(c) for whole in COMMANDS)]
    shl = [shlex.split(c)[1:] for c in COMMANDS + inline if c.startswith("shl ")]
    every = set(cli.COMMANDS) | set(cli.WITH_SETTINGS)
    assert every - ELSEWHERE == {command(words) for words in shl}
    for words in shl:
        runs = sorted(Path("runs").glob("*")) if Path("runs").is_dir() else []
        argv = [w.replace("runs/RUN", str(runs[0])) if "RUN" in w else w for w in words]
        with refusal(words):
            cli.dispatch(argv + SHORT.get(words[0], []))
    assert Path("report.html").is_file()
    assert Path("merged/model.safetensors").is_file()
    assert Path("love.safetensors").is_file()
    assert Path("scores.json").is_file()
    assert Path("gguf/adapter.gguf").is_file()
    assert Path("steered/model.safetensors").is_file()
    assert Path("compare/compare.html").is_file()
    assert Path("sweep/groups/smollm2-joy/compare.html").is_file() and Path("sweep/sweep.html").is_file()
    assert '"resumed": true' not in (runs[0] / "events.jsonl").read_text(), (
        "a finished run is not begun again"
    )
    personas = [(run / "persona.toml").read_bytes() for run in runs]
    assert personas.count(Path("mine.toml").read_bytes()) == 2


def command(words: list[str]) -> str:
    return " ".join(words[:2]) if words[0] == "vector" else words[0]


def refusal(words: list[str]) -> AbstractContextManager:
    """What a command ends in here: help leaves, random weights get no certificate, and only a GPU's memory can be kept
    to a part of it."""
    if words[0] == "certify":
        return pytest.raises(SystemExit, match="^3$")
    if "--help" in words:
        return pytest.raises(SystemExit, match="^0$")
    if "--memory" in words and not torch.cuda.is_available():
        return pytest.raises(UserError, match="only a CUDA device")
    return nullcontext()


def test_the_python_runs(small, capsys):
    (code,) = blocks("python")
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)  # our own README, not model output
    assert names["run"].summary["rounds"] == 3
