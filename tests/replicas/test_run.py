"""A whole run on two copies is the run on one: its text to the token, its readings, and a killed copy loses one step.

Marked long: a copy is a process that first imports everything, and reads a model from its folder.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from steer_heal_love import loop
from steer_heal_love.ground import records
from steer_heal_love.ground.team import Lost
from steer_heal_love.replicas.local import Machine
from tiny_model import build_model, build_tokenizer
from tiny_run import DEPTH, SETTINGS

pytestmark = pytest.mark.long
EVAL = SETTINGS["eval"] | {"transfer": "off"}
SAME = ("base/anchor.jsonl", "base/neutral.jsonl", "base/calibration.jsonl", "rounds/00/completions.jsonl")
"""what is written before any heal, whose gradient is summed in another order"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> dict:
    """A run of the tiny model, from a folder that a copy can read too, nothing of it kept for the next. In fp32 on every machine:
    in bf16 a row that is read in another batch draws other tokens."""
    folder, tok = tmp_path_factory.mktemp("model"), build_tokenizer()
    build_model(len(tok), tok.eos_token_id, depth=DEPTH).save_pretrained(folder)
    tok.save_pretrained(folder)
    return SETTINGS | {"model": str(folder), "dtype": "float32", "rounds": 1, "eval": EVAL}


@pytest.fixture(scope="module")
def one(settings, tmp_path_factory) -> Path:
    return whole(settings, tmp_path_factory.mktemp("one"), replicas=1)


@pytest.fixture(autouse=True, scope="module")
def _nothing_kept():
    os.environ["STEER_HEAL_LOVE_CACHE"] = "off"
    yield
    del os.environ["STEER_HEAL_LOVE_CACHE"]


def whole(settings: dict, out: Path, **placed) -> Path:
    return loop.run(**(settings | {"out": str(out)} | placed)).folder.path


def alike(one: Path, other: Path) -> None:
    """The same files: in those of before the heal the same tokens; what was read, and the scores, up to rounding."""
    names = lambda folder: {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert names(one) == names(other)
    for name in SAME:
        near(records.read_jsonl(one / name), records.read_jsonl(other / name))
    for name in ("base/scores.json", "rounds/00/scores.json", "rounds/00/healing.json"):
        near(records.read_json(one / name), records.read_json(other / name))


def near(one, other) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        one, other = list(one.values()), list(other.values())
    if isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            near(a, b)
    else:
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4) if isinstance(one, float) else one == other


def test_a_run_on_two_copies_is_the_run_on_one(settings, one, tmp_path):
    alike(one, whole(settings, tmp_path, replicas=2))


def test_a_run_whose_copy_was_killed_goes_on(settings, one, tmp_path, monkeypatch):
    """Killed after the first step; gone on with on one copy."""
    machines: list[Machine] = []
    start = Machine.start
    monkeypatch.setattr(Machine, "start", lambda m, told: (machines.append(m), start(m, told)))

    def kill(_look) -> None:
        if machines:
            machines.pop().processes[1].kill()

    with pytest.raises(Lost, match="replica 1 of 0 to 1 was killed by signal 9.*shl run --resume"):
        loop.run(**(settings | {"out": str(tmp_path), "replicas": 2}), show=kill)
    (path,) = tmp_path.iterdir()
    assert (path / "rounds/00/vector.safetensors").is_file() and not (path / "summary.json").exists()
    loop.run(resume=path, replicas=1)
    alike(one, path)


RAY = """
import json, sys
import ray, torch
from steer_heal_love import loop
torch.set_num_threads(1)
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
print(loop.run(**json.loads(sys.argv[1])).folder.path)
"""


def test_a_run_on_a_ray_cluster_is_the_run_on_one(settings, one, tmp_path):
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed; pip install 'steer-heal-love[ray]' runs this")
    told = json.dumps(settings | {"out": str(tmp_path), "replicas": 2, "ray": "auto"})
    done = subprocess.run([sys.executable, "-c", RAY, told], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    alike(one, Path(done.stdout.splitlines()[-1]))
