"""A run folder's promises: one writer, the same numbers from memory and from the disk, and nobody else's files."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch

from steer_heal_love.ground import folder as files
from steer_heal_love.ground import made, records
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.folder import RunFolder
from steer_heal_love.vector import Vector


@pytest.fixture
def folder(tmp_path):
    here = RunFolder.create(tmp_path, "run")
    (here.path / "config.toml").write_text("seed = 1\n")
    given = made.hashes(here.path, [here.path / "config.toml"])
    records.write_json(here.path / "manifest.json", {"schema": records.SCHEMA, "seed": 1, "files": given})
    return here


def step(folder, value, name="a.json"):
    return folder.once("room", folder.path / name, records.read_json, files.save_json, lambda: value)


def test_a_step_gives_what_its_file_says_the_first_time_too(folder):
    assert (
        step(folder, {"t": (1, 2), "x": float("nan")}) == {"t": [1, 2], "x": None} == step(folder, "not made")
    )


def test_a_kill_between_the_file_and_its_event_is_made_good(folder):
    records.write_json(folder.path / "a.json", 3)
    assert step(folder, "not made") == 3 == step(folder, "nor now")
    (done,) = folder.done()
    assert done["file"] == "a.json" and done["seconds"] is None
    assert done["files"] == {"a.json": made.digest(folder.path / "a.json")} and folder.seconds() == {
        "room": 0.0
    }


def test_a_second_writer_is_refused_and_the_next_one_is_not(folder):
    with (
        folder.locked(),
        pytest.raises(UserError, match="another process"),
        RunFolder.open(folder.path).locked(),
    ):
        pass
    with folder.locked():
        pass


@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "foreign"])
@pytest.mark.parametrize("name", ["a.json", "config.toml"])
def test_a_changed_file_is_named_and_a_deleted_one_is_made_again(folder, name, damage):
    step(folder, {"one": 1})
    folder.check()
    file = folder.path / name
    whole = file.read_bytes()
    file.write_bytes(
        {"truncated": whole[:5], "empty": b"", "garbage": b"\xff\0{", "foreign": whole.replace(b"1", b"2")}[
            damage
        ]
    )
    with pytest.raises(UserError, match=name):
        RunFolder.open(folder.path).check()
    file.write_bytes(whole)
    folder.check()


def test_without_a_log_what_cannot_be_read_is_still_a_message(folder):
    (folder.path / "a.json").write_text('{"a": ')
    with pytest.raises(UserError, match=r"a\.json: damaged"):
        step(folder, 1)


def test_a_step_made_again_otherwise_is_warned_of(folder):
    step(folder, 1)
    (folder.path / "a.json").unlink()
    assert folder.lost() == ["a.json"]
    folder.check()
    assert step(folder, 2) == 2
    (warned,) = (e for e in folder.event.read() if e["event"] == "warning")
    assert warned["message"].startswith("a.json: made again")
    folder.check()


def test_a_step_lacks_what_should_lie_beside_it(folder):
    for name in ("transfer.json", "shift.safetensors"):
        (folder.path / name).write_text("{}")
    assert step(folder, 5, "transfer.json") == {}
    (folder.path / "shift.safetensors").unlink()
    assert step(folder, 5, "transfer.json") == 5


def test_links_that_leave_the_folder_are_refused_and_others_are_not(folder, tmp_path):
    (folder.path / "inner").symlink_to("config.toml")
    RunFolder.open(folder.path)
    (folder.path / "base").symlink_to(tmp_path)
    with pytest.raises(UserError, match="leads out of"):
        RunFolder.open(folder.path)


def test_a_folder_that_goes_away_is_not_written_anew(folder):
    def make():
        shutil.rmtree(folder.path)
        return 1

    with pytest.raises(UserError, match="gone"):
        folder.once("room", folder.path / "deep" / "a.json", records.read_json, files.save_json, make)
    assert not folder.path.exists()


def test_a_copy_elsewhere_is_the_run_too(folder, tmp_path):
    step(folder, 1)
    shutil.copytree(folder.path, tmp_path / "copy")
    copy = RunFolder.open(tmp_path / "copy")
    copy.check()
    assert step(copy, 2) == 1


def test_a_reader_leaves_the_log_alone(folder):
    folder.event("start")
    with folder.event.path.open("a") as f:
        f.write('{"t": 1, "ev')
    before = folder.event.path.read_bytes()
    RunFolder.open(folder.path).event.read()
    assert folder.event.path.read_bytes() == before


@pytest.mark.parametrize(
    "log",
    [
        b"\xff\xfe",
        b"[]\n3\n",
        b'{"event": 3}\n{"event": "done"}\n{"event": "done", "room": [], "file": {}, "seconds": "x"}\n',
        b"[" * 5000,
    ],
)
def test_a_log_of_anything_is_read(folder, log):
    folder.event.path.write_bytes(log)
    folder.check()
    assert folder.seconds() == {} and not folder.ended and folder.peak_memory_gb() == 0.0


def test_a_logs_paths_stay_in_the_folder(folder):
    folder.event("done", room="x", file="y", files={"../secret": "0", os.path.abspath("/etc/passwd"): "0"})
    assert folder.hashes() == {} and folder.lost() == []


def test_a_vectors_file_is_the_same_bytes_each_time(tmp_path):
    v = Vector({2: torch.ones(4), 11: torch.arange(4.0)}, {"note": 'é "x"', "round": 1})
    seen = set()
    for i in range(12):
        v.save(tmp_path / f"{i}")
        seen.add((tmp_path / f"{i}").read_bytes())
    again = Vector.load(tmp_path / "0")
    assert len(seen) == 1 and again.meta == v.meta
    assert all(torch.equal(again.directions[i], d) for i, d in v.directions.items())
    assert (
        json.loads(next(iter(seen))[8:].split(b"\0")[0].rpartition(b"}")[0] + b"}")["__metadata__"][
            "operation"
        ]
        == "add"
    )


def test_files_that_are_written_anew_are_logged_anew_and_the_others_stay(folder):
    for name in made.DERIVED:
        records.write_text(folder.path / name, "first")
    folder.wrote()
    records.write_text(folder.path / "report.html", "second")
    records.write_text(folder.path / "summary.json", "by other hands")
    folder.wrote(made.PAGES)
    assert folder.derived().keys() == set(made.DERIVED)
    assert folder.stale() == ["summary.json"]
    (folder.path / "base" / "checks.json").unlink()
    folder.wrote()
    assert folder.derived().keys() == set(made.DERIVED) - {"base/checks.json"}


def test_a_folder_of_runs_names_the_newest_of_them(tmp_path):
    for name in ("20260101T000000Z-a", "20260301T000000Z-c", "20260201T000000Z-b", "20250101T000000Z-d"):
        records.write_json(tmp_path / name / "manifest.json", {})
    with pytest.raises(
        UserError, match="no run there .*; the newest in it: 20260301.*-c, 2026.*-b, 2026.*-a"
    ):
        RunFolder.open(tmp_path)
