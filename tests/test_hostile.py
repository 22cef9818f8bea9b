"""A generated collection of hostile inputs: 0 tracebacks, 0 raw escapes, 0 silently wrong results.

A few of each kind in every run; more than a thousand with `pytest -m nightly tests/test_hostile.py`, or with
`tools/hostile.py`, which prints the counts. A case is repeated by its kind and seed.
"""

from __future__ import annotations

import pytest

import hostile
import tiny_run
from judge import MAKERS, judged

EVERY = {kind: 10 if kind in hostile.KINDS else 2 for kind in MAKERS}
"""cases each time; folders cost a second each, files next to nothing"""
NIGHTLY = 90
"""cases of each of the thirteen kinds"""


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    tiny_run.made_cheap(monkeypatch.setattr)


def survived(kind: str, seed: int, folder) -> None:
    folder.mkdir()
    found = judged(kind, seed, folder)
    assert not found.fault, found


@pytest.mark.parametrize("kind", MAKERS)
def test_hostile_inputs_are_survived(kind, tmp_path):
    for seed in range(EVERY[kind]):
        survived(kind, seed, tmp_path / str(seed))


@pytest.mark.nightly
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", MAKERS)
def test_a_thousand_hostile_inputs_are_survived(kind, tmp_path):
    for seed in range(EVERY[kind], EVERY[kind] + NIGHTLY):
        survived(kind, seed, tmp_path / str(seed))
