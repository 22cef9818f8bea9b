"""A full disk, one without inodes, a read-only one, a folder that goes away, signals, a clock that goes backwards: in run,
compare, export and report. What ends ends with a message, and what is resumed ends as an unbroken run does."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tiny_run
from steer_heal_love import cli, compare, loop, report
from steer_heal_love.cli import signals, verbs
from steer_heal_love.ground import records
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.folder import RunFolder

SHORT = {"rounds": 1}
SITTINGS = 60


@pytest.fixture(scope="module", autouse=True)
def cheap():
    with pytest.MonkeyPatch.context() as patch:
        tiny_run.made_cheap(patch.setattr)
        yield


@pytest.fixture(scope="module")
def whole(cheap, tmp_path_factory) -> Path:
    return tiny_run.shared(tmp_path_factory)


@pytest.fixture
def disk(tmp_path) -> Iterator[Callable[[str], Path]]:
    """A file system of its own in memory: `disk("size=64k")` makes it, or makes it anew with other limits."""
    at = tmp_path / "disk"
    at.mkdir()

    def limited(how: str) -> Path:
        flags = f"remount,{how}" if at.is_mount() else how
        argv = ["mount", "-t", "tmpfs", "-o", flags, "none", str(at)]
        if shutil.which("mount") is None or subprocess.run(argv, capture_output=True).returncode:
            pytest.skip("only root may mount a file system here")
        return at

    yield limited
    if at.is_mount():
        subprocess.run(["umount", "-l", str(at)], check=True)


@pytest.mark.parametrize(
    "limit",
    [lambda n: f"size={32 + 48 * n}k,nr_inodes=500", lambda n: f"size=8m,nr_inodes={7 + 6 * n}"],
    ids=["full", "no inodes"],
)
def test_a_run_on_a_disk_that_is_full_again_and_again_goes_on(disk, whole, limit):
    home, refusals = disk(limit(0)), 0
    for n in range(1, SITTINGS):
        begun = [p for p in home.glob("*") if (p / "config.toml").is_file()]
        try:
            loop.run(resume=begun[0]) if begun else tiny_run.run(home, **SHORT)
            break
        except UserError as e:
            assert "No space left" in str(e)
            refusals += 1
            disk(limit(n))
    (run,) = (p for p in home.iterdir() if (p / "manifest.json").is_file())
    assert refusals >= 2 and tiny_run.differing(run, whole, elsewhere=True) == []


WHOLE = {"adapter_model.safetensors", "r.html", "compare.json", "compare.html"}
"""what would say that a verb had done its work"""


@pytest.mark.parametrize("limit", ["size=4k", "nr_inodes=2"], ids=["full", "no inodes"])
def test_nothing_is_exported_reported_or_compared_on_a_full_disk(disk, whole, limit):
    home = disk(limit)
    verbs_ = {
        "export": lambda: verbs.export(whole, out=home / "x" / "y"),
        "report": lambda: report.write([whole], home / "r.html"),
        "compare": lambda: tiny_run.comparison(home / "c", **SHORT),
    }
    for name, verb in verbs_.items():
        with pytest.raises(UserError, match="No space left"):
            verb()
        left = {p.name for p in home.rglob("*")}
        assert not left & WHOLE and not any(n.endswith(".part") for n in left), name
        for path in home.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_a_read_only_folder_is_read_and_not_written(disk, whole, tmp_path):
    home = disk("size=8m")
    run = shutil.copytree(whole, home / whole.name)
    half = shutil.copytree(whole, home / "half")
    (half / "rounds" / "00" / "scores.json").unlink()
    disk("ro")
    report.terminal(run)
    report.write([run], tmp_path / "r.html")
    verbs.export(run, out=tmp_path / "x")
    for write in (
        lambda: report.write([run], run / "report.html"),
        lambda: loop.run(resume=half),
        lambda: verbs.export(run, out=home / "x"),
        lambda: tiny_run.run(home, **SHORT),
        lambda: tiny_run.comparison(home / "c", **SHORT),
    ):
        with pytest.raises(UserError, match="Read-only"):
            write()
    disk("rw")
    assert tiny_run.differing(run, whole) == [] and not (home / "c").exists()


def gone_at(label: str, folder: Callable[[], Path]):
    """A track that deletes the folder as the step of that label begins."""
    from contextlib import contextmanager

    @contextmanager
    def track(name, _total):
        if label in name and folder().exists():
            shutil.rmtree(folder())
        yield lambda _n: None

    return track


@pytest.mark.parametrize("label", ["base: states", "transfer"])
def test_a_run_whose_folder_vanishes_says_so_and_makes_no_other(tmp_path, whole, label):
    run = shutil.copytree(whole, tmp_path / "runs" / "a")
    (run / "rounds" / "00" / "transfer.json").unlink()
    (run / "base" / "scores.json").unlink()
    with pytest.raises(UserError, match="gone|cannot write|No such file"):
        loop.run(resume=run, track=gone_at(label, lambda: run))
    assert not run.exists()


def test_a_comparison_whose_folder_vanishes_says_so_and_makes_no_other(tmp_path):
    with pytest.raises(UserError, match="gone|cannot write"):
        compare.run(
            out=tmp_path / "c",
            seeds=1,
            methods=("steering",),
            track=gone_at("base: states", lambda: tmp_path / "c"),
            **(tiny_run.SETTINGS | SHORT),
        )
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("verb", ["report", "export", "run", "compare"])
def test_a_signal_in_the_middle_of_writing_leaves_no_half_file(
    monkeypatch, tmp_path, whole, capsys, verb, number
):
    run = shutil.copytree(whole, tmp_path / "runs" / whole.name)
    act = {
        "report": lambda: report.write([run], tmp_path / "r.html"),
        "export": lambda: verbs.export(run, out=tmp_path / "x"),
        "run": lambda: tiny_run.run(tmp_path / "new", **SHORT),
        "compare": lambda: tiny_run.comparison(tmp_path / "c", **SHORT),
    }[verb]
    monkeypatch.setattr(cli, "dispatch", lambda _argv: act())
    monkeypatch.setattr(os, "replace", lambda *_: os.kill(os.getpid(), number))
    with pytest.raises(SystemExit) as e:
        cli.main([])
    assert e.value.code == signals.BY_SIGNAL + number and "interrupted" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.part")) and tiny_run.differing(run, whole) == []
    assert not any((tmp_path / n).exists() for n in ("r.html", "x/adapter_config.json", "c/plan.json"))


def test_a_run_that_is_stopped_holds_its_folder_and_goes_on_under_a_clock_that_goes_back(
    tmp_path, whole, monkeypatch
):
    clock = iter(range(2_000_000_000, 0, -1))
    child = os.fork()
    if child == 0:
        try:
            monkeypatch.setattr(records.time, "time", lambda: float(next(clock)))
            tiny_run.run(tmp_path, **SHORT)
            os._exit(0)
        finally:
            os._exit(1)
    while not (found := list(tmp_path.glob("*/base/anchor.jsonl"))):
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
        time.sleep(0.01)
    run = found[0].parents[1]
    os.kill(child, signal.SIGSTOP)
    try:
        with pytest.raises(UserError, match="another process"):
            loop.run(resume=run)
    finally:
        os.kill(child, signal.SIGCONT)
    assert os.waitpid(child, 0)[1] == 0
    assert tiny_run.differing(run, whole, elsewhere=True) == []
    times = [e["t"] for e in RunFolder(run).event.read()]
    assert times == sorted(times, reverse=True) and all(s >= 0 for s in RunFolder(run).seconds().values())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
def test_whatever_the_disk_refuses_is_a_message(monkeypatch, tmp_path, whole, number):
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    run = shutil.copytree(whole, tmp_path / whole.name)
    (run / "rounds" / "00" / "first.jsonl").unlink()
    monkeypatch.setattr(os, "replace", refuse)
    for write in (
        lambda: loop.run(resume=run),
        lambda: report.write([run], tmp_path / "r.html"),
        lambda: verbs.export(run, out=tmp_path / "x"),
        lambda: tiny_run.run(tmp_path / "new", **SHORT),
        lambda: tiny_run.comparison(tmp_path / "c", **SHORT),
    ):
        with pytest.raises(UserError, match=os.strerror(number)):
            write()
