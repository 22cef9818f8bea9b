"""What can't be had is told before anything is written, with what to change."""

from __future__ import annotations

import os
import sys
from types import ModuleType, SimpleNamespace

import pytest

from steer_heal_love import cli, replicas
from steer_heal_love.config import PLACES, RunConfig
from steer_heal_love.ground.errors import UserError

MANY = str((os.cpu_count() or 1) + 1)
WRONG = {
    "more copies than processors": (["run", "--device", "cpu", "--replicas", MANY], "--replicas 0"),
    "a split copy without GPUs": (["run", "--device", "cpu", "--split", "2"], "give --split 1"),
    "a comparison": (["compare", "--device", "cpu", "--replicas", "2"], "--workers"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_there_exits_2_and_writes_nothing(name, tmp_path, monkeypatch, capsys):
    argv, remedy = WRONG[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "steer_heal_love.ground.models.load", lambda *_a, **_how: pytest.fail("a model was loaded")
    )
    with pytest.raises(SystemExit) as end:
        cli.main([*argv, "--out", str(tmp_path / "runs")])
    told = " ".join(capsys.readouterr().err.split())
    assert end.value.code == 2 and remedy in told and "Traceback" not in told
    assert not list(tmp_path.iterdir())


def test_ray_that_is_not_installed_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"steer-heal-love\[ray\]"):
        replicas.plan(RunConfig(device="cpu", replicas=2, ray="auto"))


@pytest.fixture
def ray(monkeypatch):
    """A Ray that has met nobody, and a cluster of one GPU once it has."""
    fake = ModuleType("ray")
    fake.is_initialized = lambda: False
    fake.init = lambda **_how: None
    fake.cluster_resources = lambda: {"CPU": 4.0, "GPU": 1.0}
    monkeypatch.setitem(sys.modules, "ray", fake)
    return fake


def test_a_ray_address_where_nothing_answers_is_told(ray, monkeypatch):
    def refused(_address, timeout):
        assert timeout < 60
        raise ConnectionRefusedError("Connection refused")

    monkeypatch.setattr("socket.create_connection", refused)
    with pytest.raises(
        UserError, match=r"'10.0.0.1:6379' \(Connection refused\); start one with `ray start --head`"
    ):
        replicas.plan(RunConfig(device="cpu", replicas=2, ray="10.0.0.1:6379"))
    for odd in ("ray://head:10001", "head", "6379", "head:"):
        with pytest.raises(UserError, match="HOST:PORT"):
            replicas.plan(RunConfig(device="cpu", replicas=2, ray=odd))


def test_a_cluster_without_so_many_is_told(ray):
    assert replicas.plan(RunConfig(device="cpu", replicas=4, ray="auto")).count == 4
    with pytest.raises(UserError, match="9 asked for, and the Ray cluster at 'auto' has 4 processors"):
        replicas.plan(RunConfig(device="cpu", replicas=9, ray="auto"))


def test_one_copy_needs_nothing():
    found = replicas.plan(RunConfig(device="cpu"))
    assert (found.count, found.split, found.cuda) == (1, 1, False)
    with replicas.together(RunConfig(device="cpu"), None):
        assert replicas.team.size() == 1


def test_all_gpus_of_a_machine_are_taken_by_split_copies(monkeypatch):
    monkeypatch.setattr("steer_heal_love.replicas.known_device", lambda _name: "cuda")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    assert replicas.plan(RunConfig(device="cuda", replicas=0)).count == 8
    assert replicas.plan(RunConfig(device="cuda", replicas=0, split=4)).count == 2
    with pytest.raises(UserError, match="3 asked for on 4 GPUs each, and torch finds 8 GPUs"):
        replicas.plan(RunConfig(device="cuda", replicas=3, split=4))


def test_a_follower_sees_its_own_gpus(monkeypatch):
    from steer_heal_love.replicas.local import Machine

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    machine = Machine(replicas.Plan(2, 2, cuda=True, ray="", trust_remote_code=False))
    assert machine.environment(1)["CUDA_VISIBLE_DEVICES"] == "6,7"
    machine.stop(0)


def test_where_a_comparison_computes_is_no_part_of_its_plan():
    """So that one that was begun before these settings goes on."""
    from steer_heal_love.compare import study

    assert not set(PLACES) & study.plan(RunConfig()).keys()


def test_a_resumed_run_may_compute_elsewhere_and_have_no_other_settings(tmp_path, monkeypatch, capsys):
    given: dict = {}
    done = SimpleNamespace(folder=SimpleNamespace(path=tmp_path))
    (tmp_path / "config.toml").write_text("")
    monkeypatch.setattr("steer_heal_love.loop.run", lambda _settings, **how: given.update(how) or done)
    monkeypatch.setattr("steer_heal_love.cli.runs.show", lambda _path: None)
    cli.main(["run", "--resume", str(tmp_path), "--replicas", "1", "--split", "2"])
    assert {name: given[name] for name in PLACES if name in given} == {"replicas": 1, "split": 2}
    with pytest.raises(SystemExit) as end:
        cli.main(["run", "--resume", str(tmp_path), "--replicas", "1", "--rounds", "2"])
    assert end.value.code == 2 and "--resume goes on with the settings" in capsys.readouterr().err
