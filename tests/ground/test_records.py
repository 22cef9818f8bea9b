"""Files are written whole or not at all, and what comes back is what went in."""

from __future__ import annotations

import gc
import importlib.util
import json
import math
import os
import weakref
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import save_file

from steer_heal_love.ground import folder as files
from steer_heal_love.ground import memory, records
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.folder import RunFolder
from steer_heal_love.nouns import Completion, Score, Stage, Tokens


def test_nan_and_infinity_become_null(tmp_path):
    path = tmp_path / "a.json"
    records.write_json(path, {"a": math.nan, "b": [1.5, -math.inf], 3: (Score.undefined(),)})
    assert json.loads(path.read_text(), parse_constant=lambda c: pytest.fail(f"{c} is not JSON")) == {
        "a": None,
        "b": [1.5, None],
        "3": [{"mean": None, "lo": None, "hi": None, "n": 0}],
    }


def test_a_failed_write_keeps_the_old_file_and_leaves_no_scrap(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    records.write_json(path, {"good": 1})

    def fail(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(UserError, match="No space left"):
        records.write_json(path, {"bad": 2})
    assert records.read_json(path) == {"good": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_write_cut_short_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    records.write_json(path, {"good": 1})
    real = type(path).write_bytes

    def torn(self, data):
        real(self, data[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "write_bytes", torn)
    with pytest.raises(UserError, match="No space left"):
        records.write_json(path, {"bad": 2})
    monkeypatch.undo()
    assert records.read_json(path) == {"good": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_what_safetensors_cannot_write_is_a_user_error_and_keeps_the_old_file(tmp_path):
    """Its error is no OSError; a folder in the file's place raises it as a full disk does."""
    path, here = tmp_path / "a.safetensors", RunFolder.create(tmp_path, "run")
    records.write_text(path, "good")
    fail = lambda *_args: save_file({"a": torch.ones(2)}, str(tmp_path))
    with pytest.raises(UserError, match=r"a\.safetensors.*directory"), records.whole(path):
        fail()
    with pytest.raises(UserError, match=r"b\.safetensors.*directory"):
        here.once("vector", here.path / "b.safetensors", records.read_json, fail, lambda: 1)
    assert path.read_text() == "good"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.safetensors", "run"]


def test_a_folder_that_cannot_be_made_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="cannot write"):
        records.write_text(tmp_path / "file" / "a.json", "{}")


def test_what_is_not_json_never_replaces_a_file(tmp_path):
    path = tmp_path / "a.json"
    records.write_json(path, {"good": 1})
    with pytest.raises(TypeError):
        records.write_json(path, {"bad": object()})
    assert records.read_json(path) == {"good": 1}


def test_events_append(tmp_path):
    event = records.Events(tmp_path / "events.jsonl")
    event("start", resumed=False)
    event("done", room="heal", seconds=math.nan)
    rows = records.read_jsonl(tmp_path / "events.jsonl")
    assert [r["event"] for r in rows] == ["start", "done"]
    assert rows[1]["seconds"] is None and rows[0]["t"] <= rows[1]["t"]


def made(text: str) -> Completion:
    return Completion(
        "a prompt",
        Tokens((1, 2, 3), (4, 5)),
        text,
        0.75,
        True,
        {"nll": 1.25, "nll_tail": math.nan},
        ["nll_tail"],
        False,
        False,
    )


def test_completions_come_back_as_they_were(tmp_path):
    several = [made('He said: "yes"\nand\ttwo\r\nlines — 我 \\'), made("")]
    files.save_completions(several, tmp_path / "c.jsonl")
    again = files.load_completions(tmp_path / "c.jsonl")
    assert all(math.isnan(c.checks.pop("nll_tail")) for c in again)
    for c in several:
        c.checks.pop("nll_tail")
    assert again == several
    rows = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text().split("\n") if line]
    assert (
        rows[0]["verdict"] == "dropped" and rows[0]["ids"] == [4, 5] and rows[0]["checks"]["nll_tail"] is None
    )


@pytest.mark.parametrize("char", ["\u2028", "\u2029", "\x85"])
def test_completions_with_unicode_line_separators_come_back(tmp_path, char):
    files.save_completions([made(f"one{char}two")], tmp_path / "c.jsonl")
    assert files.load_completions(tmp_path / "c.jsonl")[0].text == f"one{char}two"


def test_stages_come_back_as_they_were(tmp_path):
    stage = Stage(
        1,
        "healed",
        {"trait": Score(0.5, 0.1, 0.9, 12), "mfv.Care": Score.undefined()},
        {"trait": [0.1, math.nan]},
        [{"prompt": "p", "ids": [1], "text": "t", "ended": False}],
        0.5,
    )
    files.save_stages([stage], tmp_path / "s.json")
    (again,) = files.load_stages(tmp_path / "s.json")
    assert again.scores["trait"] == stage.scores["trait"] and again.samples == stage.samples
    assert math.isnan(again.scores["mfv.Care"].mean) and again.scores["mfv.Care"].n == 0
    assert again.items["trait"][0] == 0.1 and math.isnan(again.items["trait"][1])
    assert (again.round, again.stage, again.dose) == (1, "healed", 0.5)


def test_once_makes_a_thing_once_and_logs_its_seconds(tmp_path):
    here, calls = RunFolder.create(tmp_path, "run"), []

    def make():
        calls.append(1)
        return {"n": len(calls)}

    for _ in range(2):
        found = here.once(
            "filter",
            here.path / "b.json",
            records.read_json,
            lambda v, p: records.write_json(p, v),
            make,
        )
        assert found == {"n": 1}
    assert list(here.seconds()) == ["filter"] and here.seconds()["filter"] >= 0
    assert len([e for e in records.read_jsonl(here.path / "events.jsonl") if e["event"] == "done"]) == 1


def test_what_failed_to_be_made_is_made_again(tmp_path):
    here = RunFolder.create(tmp_path, "run")

    def fail():
        raise KeyError("injected")

    with pytest.raises(KeyError, match="injected"):
        here.once(
            "filter",
            here.path / "b.json",
            records.read_json,
            lambda v, p: records.write_json(p, v),
            fail,
        )
    save = lambda v, p: records.write_json(p, v)
    assert here.once("filter", here.path / "b.json", records.read_json, save, lambda: 3) == 3


def test_a_run_of_the_same_name_is_numbered(tmp_path):
    names = [RunFolder.create(tmp_path, "run").path.name for _ in range(3)]
    assert names == ["run", "run-2", "run-3"]


def test_no_run_and_another_version_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="no run there"):
        RunFolder.open(tmp_path)
    records.write_json(tmp_path / "manifest.json", {"schema": records.SCHEMA + 1})
    with pytest.raises(UserError, match="version"):
        RunFolder.open(tmp_path)


def test_a_torn_last_event_does_not_stop_a_resumed_run(tmp_path):
    here = RunFolder.create(tmp_path, "run")
    here.event("done", room="heal", seconds=1.0)
    with here.event.path.open("a") as f:
        f.write('{"t": 1.0, "eve')
    again = RunFolder(here.path)
    again.event("start", resumed=True)
    again.event("done", room="heal", seconds=2.0)
    assert again.seconds() == {"heal": 3.0}


def test_an_event_that_the_disk_took_half_of_does_not_spoil_the_next(tmp_path, monkeypatch):
    here = RunFolder.create(tmp_path, "run")
    here.event("start")

    def half(path, row):
        with path.open("a") as f:
            f.write(json.dumps(row)[:20])
        raise UserError("no space left")

    with monkeypatch.context() as patch, pytest.raises(UserError):
        patch.setattr(records, "append_jsonl", half)
        here.event("done", room="vector", seconds=1.0)
    here.event("done", room="heal", seconds=2.0)
    assert here.seconds() == {"heal": 2.0}


def test_a_folder_that_was_moved_is_gone_even_where_another_lies_in_its_place(tmp_path):
    """What is being written while it is moved makes its folder anew."""
    here = RunFolder.create(tmp_path, "run")
    here.still_there()
    here.path.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="gone since"):
        here.still_there()
    records.write_text(here.path / "report.html", "")
    with pytest.raises(UserError, match="gone since"):
        here.still_there()


def test_who_may_read_a_file_may_read_the_weights_beside_it(tmp_path):
    """safetensors makes a file for its owner alone; a team shares a folder."""
    (tmp_path / "plain").touch()
    for path in (tmp_path / "a.safetensors", tmp_path / "b.json"):
        for _ in range(2):  # new, and in place of one
            with records.whole(path) as scratch:
                if path.suffix == ".json":
                    scratch.write_text("{}")
                else:
                    save_file({"x": torch.zeros(2)}, scratch)
            assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert not list(tmp_path.glob(".*"))


def as_written():
    """The module with its functions as they are written: the other tests run without `release_memory`."""
    spec = importlib.util.find_spec(records.__name__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("unclaimed", "reserved", "emptied"),
    [((80, 39), (0, 9), 1), ((80, 40), (0, 9), 0), ((39, 40), (9, 9), 1), ((0, 40), (0, 9), 0)],
)
def test_a_gpu_keeps_its_cache_where_half_of_its_memory_is_free_besides(
    monkeypatch, unclaimed, reserved, emptied
):
    """Each GPU that this process has used is asked, and no other."""
    calls, at = [], []

    @contextmanager
    def on(index):
        at.append(index)
        yield
        at.pop()

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device", on)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda index: reserved[index])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (unclaimed[at[-1]], 80))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append(1))
    monkeypatch.setattr(memory, "unclaimed_bytes", lambda: unclaimed[at[-1]])
    as_written().release_memory()
    assert len(calls) == emptied


def test_a_process_that_has_used_no_gpu_asks_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    for name in ("mem_get_info", "memory_reserved", "empty_cache", "device_count"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: pytest.fail("a GPU was asked"))
    as_written().release_memory()


def test_garbage_that_holds_itself_is_given_back():
    module = as_written()

    class Node:
        pass

    node = Node()
    node.itself, gone = node, weakref.ref(node)
    gc.disable()
    try:
        del node
        assert gone() is not None
        module.release_memory()
        assert gone() is None
    finally:
        gc.enable()


def test_what_is_set_aside_is_looked_through_again_afterwards():
    gc.unfreeze()
    with records.set_aside():
        assert gc.get_freeze_count() > 1000
        seen = weakref.ref(found := Holder())
        found.itself = found
        del found
        gc.collect()
        assert seen() is None, "what is made meanwhile is still found"
    assert gc.get_freeze_count() == 0


class Holder:
    """Something that may hold itself."""

    itself: object = None
