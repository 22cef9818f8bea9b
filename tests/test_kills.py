"""Runs of a tiny model killed at random moments and resumed: none lost, none different, none without its events.

Two each time; fifty with `pytest -m long`; five hundred, twenty of them comparisons, with `pytest -m nightly`. A case is
repeated by its seed: `python tools/kills.py --first SEED --runs 1`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "kills.py"
WELL = {"lost": 0, "different": 0, "lacking_events": 0}


def killed(to: Path, *, runs: int, compare: int) -> None:
    """Every case asked for was killed, resumed and found whole."""
    asked = {"runs": runs, "compare": compare, "workers": os.cpu_count() or 1, "out": to}
    argv = [word for name, value in asked.items() for word in (f"--{name}", str(value))]
    told = subprocess.run([sys.executable, str(TOOL), *argv], capture_output=True, text=True)
    assert to.is_file(), told.stderr[-2000:]
    found = json.loads(to.read_text())
    for kind, n in [(kind, n) for kind, n in (("run", runs), ("compare", compare)) if n]:
        counts = found["counts"][kind]
        assert {k: counts[k] for k in WELL} == WELL and counts["survived"] == n, told.stdout[-4000:]
        assert counts["killed"] > 0.8 * n and found["unbroken"][kind]["different"] == 0
    assert told.returncode == 0


def test_a_killed_run_ends_as_an_unbroken_one_does(tmp_path):
    """Two, so that the tool runs wherever the others do: one concludes its rounds one after the other, one beside the next."""
    killed(tmp_path / "kills.json", runs=2, compare=0)


@pytest.mark.long
@pytest.mark.timeout(0)
def test_fifty_killed_runs_end_as_an_unbroken_one_does(tmp_path):
    killed(tmp_path / "kills.json", runs=48, compare=2)


@pytest.mark.nightly
@pytest.mark.timeout(0)
def test_five_hundred_killed_runs_end_as_an_unbroken_one_does(tmp_path):
    killed(tmp_path / "kills.json", runs=480, compare=20)
