"""Arrows point one way: cli → compare → loop → control → steps → base → session → rooms → presets → config → nouns and ground. Only ground registers hooks or edits weights."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import steer_heal_love

ROOT = Path(steer_heal_love.__file__).parent
ROOMS = {
    "persona",
    "vector",
    "generate",
    "filter",
    "heal",
    "bake",
    "evals",
    "gates",
    "report",
}
FLOOR = {"nouns", "ground"}
FILES = sorted(ROOT.rglob("*.py"))


def part(file: Path) -> str:
    """The first step below the package: a room, `ground`, or a module's name."""
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(file: Path) -> set[str]:
    """The parts of this package that a file imports, anywhere in it."""
    out: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            module = node.module or ""
            names = [f"{module}.{a.name}" for a in node.names] if module == "steer_heal_love" else [module]
        out |= {n.split(".")[1] for n in names if n.startswith("steer_heal_love.")}
    return out


ALLOWED = {
    "nouns": set(),
    "ground": FLOOR,
    "limits": FLOOR,
    "grid": FLOOR | {"limits"},
    "config": FLOOR | {"grid", "limits"},
    "presets": FLOOR | {"config"},
    **{room: FLOOR | {"config", room} for room in ROOMS},
    "doctor": FLOOR | ROOMS | {"config", "doctor"},
    "replicas": FLOOR | {"config", "replicas"},
    "follower": FLOOR | {"loop", "replicas"},
    "manifest": FLOOR | ROOMS | {"config"},
    "session": FLOOR | ROOMS | {"config", "manifest", "presets", "replicas"},
    "alone": FLOOR | ROOMS | {"config", "session"},
    "drafting": FLOOR | ROOMS | {"config", "session"},
    "talk": FLOOR | ROOMS | {"config", "session", "talk"},
    "sweep": FLOOR | ROOMS | {"config", "session", "sweep"},
    "certify": FLOOR | ROOMS | {"config", "session", "alone", "certify"},
    "serve": FLOOR | ROOMS | {"config", "presets", "session", "alone", "talk", "certify"},
    "inspect_provider": FLOOR | {"serve"},
    "base": FLOOR | ROOMS | {"config", "session"},
    "conditions": FLOOR | ROOMS | {"config", "session"},
    "steps": FLOOR | ROOMS | {"config", "session", "base", "conditions"},
    "control": FLOOR | ROOMS | {"config", "session", "steps"},
    "previews": FLOOR | ROOMS | {"config", "session", "steps"},
    "conclusion": FLOOR | ROOMS | {"session", "base"},
    "loop": FLOOR
    | ROOMS
    | {"config", "replicas", "session", "base", "steps", "control", "previews", "conclusion"},
    "compare": FLOOR
    | ROOMS
    | {
        "config",
        "presets",
        "replicas",
        "session",
        "base",
        "steps",
        "control",
        "loop",
        "compare",
        "executors",
    },
    "executors": FLOOR | {"config", "executors"},
    "cells": FLOOR | ROOMS | {"config", "presets", "session", "base", "compare", "executors", "cells"},
    "fight": FLOOR | ROOMS | {"config", "presets", "replicas", "session", "base", "steps", "fight"},
}


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_arrows_point_one_way(file):
    if part(file) in ALLOWED:
        extra = imported(file) - ALLOWED[part(file)]
        assert not extra, f"{file.relative_to(ROOT)} imports {sorted(extra)}"


def test_every_part_is_under_the_law():
    parts = {part(f) for f in FILES}
    assert parts - set(ALLOWED) <= {"__init__", "__main__", "cli", "api"}, sorted(parts)
    assert parts >= ROOMS | FLOOR | {"loop", "config"}


@pytest.mark.parametrize(
    "file",
    [f for f in FILES if part(f) != "ground"],
    ids=lambda f: str(f.relative_to(ROOT)),
)
def test_only_the_ground_registers_hooks_or_edits_weights(file):
    found = re.findall(r"register_\w*hook|\.weight\.data|\bcopy_\(", file.read_text(encoding="utf-8"))
    assert not found, f"{file.relative_to(ROOT)}: {found}"


def test_no_pickle_and_no_broad_except():
    for file in FILES:
        text = file.read_text(encoding="utf-8")
        assert not re.search(
            r"\btorch\.(load|save)\(|\bimport pickle|except:|except (Base)?Exception\b",
            text,
        ), file


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["run", "--help"],
        ["compare", "--help"],
        ["list", "personas"],
        ["nonsense"],
        ["run", "--persona", "lave"],
        ["run", "--heal.lr", "0"],
    ],
    ids=" ".join,
)
def test_help_does_not_wait_for_torch(argv):
    code = f"""
import sys
from steer_heal_love import cli
try:
    cli.main({argv})
except SystemExit:
    pass
print([m for m in ("torch", "transformers", "matplotlib") if m in sys.modules])
"""
    told = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT.parent)},
    )
    assert told.stdout.splitlines()[-1] == "[]", told.stdout[-300:] + told.stderr


def test_only_the_command_line_needs_tyro():
    needing = {
        part(f)
        for f in FILES
        if re.search(r"^\s*(?:import|from) tyro\b", f.read_text(encoding="utf-8"), re.M)
    }
    assert needing == {"cli"}, "a benchmark calls the library where tyro is not installed"
