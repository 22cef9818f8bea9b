"""A plug-in is one file: every file of a room is found, and a wrong name says what there is."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import steer_heal_love
from steer_heal_love import compare, doctor, evals, executors, filter, gates, heal, vector
from steer_heal_love.generate import engine
from steer_heal_love.ground import declared, operations
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.registry import Registry
from steer_heal_love.heal import terms
from steer_heal_love.persona import importers

REGISTRIES = {
    r.kind: r
    for r in (
        filter.checks,
        doctor.checks,
        vector.methods,
        vector.needs,
        compare.methods,
        operations.operations,
        operations.foldings,
        operations.rows,
        importers.forms,
        heal.divergences,
        terms.terms,
        evals.instruments,
        gates.gates,
        declared.declared,
        declared.curves,
        engine.engines,
        executors.executors,
    )
}
COMPUTED = {"score", "curve", "engine"}
"""kinds whose names are partly made from other names, or are constants"""
FEW = {"number of rows of a steering operation"}
"""kinds that a single file may have"""
OWN = {
    "divergence": r"@?divergences(?:\.register)?\(",
    "loss term": r"term\(\s*Term\(",
    "form of a persona's file": r"@form\(",
    "folding of a steering operation": r"foldings\.register\(\s*",
    "number of rows of a steering operation": r"rows\.register\(\s*",
    "executor": r"@executors\(",
    "needs of a steering method": r"needs\.register\(\s*",
}
"""what registers in a room that has two registries, or a word of its own"""


@pytest.fixture
def room(tmp_path, monkeypatch):
    """A package with a registry in its door and plug-ins beside it."""

    def make(name: str, files: dict[str, str]) -> Registry:
        folder = tmp_path / name
        folder.mkdir()
        door = "from steer_heal_love.ground.registry import Registry\nthings = Registry('thing', __name__)\n"
        for file, text in {"__init__": door, **files}.items():
            (folder / f"{file}.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        importlib.invalidate_caches()
        return importlib.import_module(name).things

    return make


def test_every_registry_is_here():
    source = Path(steer_heal_love.__file__).parent.rglob("*.py")
    made = sum(len(re.findall(r"^\w+: Registry\[", f.read_text(encoding="utf-8"), re.M)) for f in source)
    assert made == len(REGISTRIES)


@pytest.mark.parametrize("name", sorted(set(REGISTRIES) - COMPUTED))
def test_every_file_of_a_room_that_registers_is_found(name):
    registry = REGISTRIES[name]
    folder = Path(importlib.import_module(registry.package).__file__).parent
    texts = [file.read_text(encoding="utf-8") for file in folder.glob("*.py")]
    call = OWN.get(name, r"@(?:check|instrument|methods?|operations|gate)\(")
    written = {found for text in texts for found in re.findall(rf"^{call}\s*\"([^\"]+)\"", text, re.M)}
    assert written == set(registry)
    assert len(registry) >= (1 if name in FEW else 2) and list(registry) == sorted(registry)


@pytest.mark.parametrize("name", sorted(REGISTRIES))
def test_an_unknown_name_is_a_user_error_with_a_suggestion(name):
    registry = REGISTRIES[name]
    known = next(iter(registry))
    with pytest.raises(UserError) as e:
        registry[known + "x"]
    assert f"Did you mean {known!r}?" in str(e.value)
    assert all(k in str(e.value) for k in registry)


def test_discovery_finds_a_new_file_and_nothing_else_is_edited(room):
    things = room(
        "room_one",
        {
            "a": "from room_one import things\nthings('first')(1)\n",
            "b": "from room_one import things\n@things('second')\ndef f(): pass\n",
        },
    )
    assert list(things) == ["first", "second"] and len(things) == 2
    assert things["first"] == 1 and callable(things["second"])


def test_a_name_taken_twice_raises(room):
    things = room("room_two", {})
    things.register("a", 1)
    with pytest.raises(ValueError, match="twice"):
        things.register("a", 2)


def test_asking_whether_a_name_is_there_does_not_raise():
    assert "no such check" not in filter.checks
    assert filter.checks.get("no such check") is None


def test_a_broken_plug_in_fails_every_time_it_is_asked_for(room):
    things = room(
        "room_three",
        {
            "a": "from room_three import things\nthings('first')(1)\n",
            "b": "raise OSError('broken')\n",
        },
    )
    for _ in range(2):
        with pytest.raises(OSError, match="broken"):
            list(things)
