"""Every file of a run folder, damaged in every way, where no log vouches for it: read, or told, and never a traceback."""

from __future__ import annotations

import pytest

from steer_heal_love import report
from steer_heal_love.ground.errors import UserError

FILES = (
    "config.toml",
    "persona.toml",
    "manifest.json",
    "events.jsonl",
    "summary.json",
    "base/bounds.json",
    "base/checks.json",
    "base/scores.json",
    "rounds/00/completions.jsonl",
    "rounds/00/healing.json",
    "rounds/00/scores.json",
)
HARMLESS = {"events.jsonl"}
"""what a kill may leave torn"""
DAMAGE = {
    "truncated": lambda raw: raw[: len(raw) // 2],
    "garbage": lambda raw: b"\xff\x00\x1b[2J{" * 50,
    "a list": lambda raw: b"[1]\n",
    "deep": lambda raw: b"[" * 100_000,
    "empty": lambda raw: b"",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_told(fabricate, damage):
    run = fabricate(rounds=1)
    for name in FILES:
        file = run / name
        whole = file.read_bytes()
        file.write_bytes(DAMAGE[damage](whole))
        if name in HARMLESS or (damage == "empty" and name.endswith((".toml", ".jsonl"))):
            report.terminal(run)
        elif name.endswith(".toml") and damage in ("truncated", "a list"):
            report.terminal(run) if readable(run) else None
        else:
            with pytest.raises(UserError, match=file.name.replace(".", r"\.")):
                report.terminal(run)
        file.write_bytes(whole)
    report.terminal(run)


def readable(run) -> bool:
    """Half a TOML file may be one too, and `[1]` is a table's name; neither is a traceback."""
    try:
        report.terminal(run)
    except UserError:
        return False
    return True
