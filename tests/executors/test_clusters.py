"""Ray and SLURM: what is refused before anything is written, and, where the packages are installed, a small cluster here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from steer_heal_love.config import Cluster
from steer_heal_love.executors import Asked, opened
from steer_heal_love.ground.errors import UserError

ROOT = Path(__file__).parents[2]
CASE = """
import os, sys
from functools import partial
from pathlib import Path
from steer_heal_love.config import Cluster
from steer_heal_love.executors import Asked, finished, opened

def dies_once(mark):
    if not mark.exists():
        mark.mkdir()
        os.kill(os.getpid(), 9)

def ended(hands, n):
    out = {}
    while len(out) < n:
        out |= {e.name: e.how for e in hands.ended(5)}
    return out

if __name__ == "__main__":
    name, kind, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    with opened(name, Asked(2, Cluster(kind=kind), folder)) as hands:
        hands.submit("stays", partial((folder / "stays").mkdir))
        hands.submit("dies", partial(dies_once, folder / "mark"))
        found = ended(hands, 2)
        assert found == {"stays": "done", "dies": "lost"}, found
        finished(hands, {"again": partial(dies_once, folder / "mark")}, lambda n: None)
    print("survived")
"""
INSTALLED = {"ray": "ray", "submitit": "slurm"}
"""executors by package, and the extra that brings it"""


def needs(package: str):
    return pytest.mark.skipif(
        find_spec(package) is None,
        reason=f"{package} is not installed; pip install 'steer-heal-love[{INSTALLED[package]}]'",
    )


@pytest.mark.parametrize("package", [pytest.param(p, marks=needs(p)) for p in INSTALLED])
def test_two_workers_of_which_one_is_killed(package, tmp_path):
    """In a process of its own, since both use the network of this machine, which tests may not."""
    script = tmp_path / "case.py"
    script.write_text(CASE)
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{tmp_path}"}
    told = subprocess.run(
        [sys.executable, str(script), package, "local", str(tmp_path)],
        capture_output=True,
        text=True,
        env=env,
        timeout=240,
    )
    assert "survived" in told.stdout and (tmp_path / "stays").is_dir(), told.stderr[-3000:]


@pytest.mark.parametrize("name", INSTALLED)
def test_an_executor_that_is_not_installed_says_what_to_install(name, monkeypatch, tmp_path):
    monkeypatch.setattr("steer_heal_love.executors.find_spec", lambda _name: None)
    with (
        pytest.raises(UserError, match=rf"pip install 'steer-heal-love\[{INSTALLED[name]}\]'"),
        opened(name, Asked(1, Cluster(), tmp_path)),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_a_slurm_that_is_not_there_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr("steer_heal_love.executors.find_spec", lambda name: name)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no SLURM here"), opened("submitit", Asked(1, Cluster(), tmp_path)):
        pass


@pytest.mark.parametrize("address", ["nowhere", "localhost:none", "localhost:99999", ":6379"])
def test_an_address_that_is_none_is_told_without_asking_it(address):
    from steer_heal_love.executors.on_ray import answers

    with pytest.raises(UserError, match="expected HOST:PORT"):
        answers(address)


def test_a_ray_address_that_does_not_answer_is_told_soon(tmp_path):
    """A process of its own, whose sockets aren't guarded; the port was ours a moment ago, and nobody listens there."""
    code = """
import socket
from steer_heal_love.executors.on_ray import answers
from steer_heal_love.ground.errors import UserError
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
try:
    answers(f"127.0.0.1:{port}")
except UserError as e:
    print(e)
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60)
    assert "nothing answers at" in told.stdout and "ray start --head" in told.stdout, told.stderr


def test_what_a_cluster_is_told_is_checked():
    with pytest.raises(UserError) as told:
        Cluster(kind="slrm", gpus=-1, minutes=0).check()  # type: ignore[arg-type]
    assert all(name in str(told.value) for name in ("cluster.kind", "cluster.gpus", "cluster.minutes"))
    assert json.loads(json.dumps(vars(Cluster()))) == vars(Cluster()), "it travels as JSON and TOML"
