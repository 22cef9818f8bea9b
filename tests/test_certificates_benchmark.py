"""The benchmark of the four known certificates: which are made under a limit, and that each line is kept at once."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import certificates

    return certificates


@pytest.mark.parametrize(
    ("limit", "made"), [(0, [4, 4, 4]), (1, [1]), (4, [4]), (5, [4, 1]), (99, [4, 4, 4])]
)
def test_a_limit_is_how_many_certificates_are_made_in_order(bench, limit, made):
    jobs = bench.jobs_of([7, 3, 5], limit)
    assert [len(names) for _, names in jobs] == made
    assert [seed for seed, _ in jobs] == [7, 3, 5][: len(made)]
    assert all(names == bench.NAMES[: len(names)] for _, names in jobs)


def test_each_line_is_in_the_file_as_soon_as_it_is_known_and_undefined_is_null(bench, tmp_path):
    for seed in (0, 1):
        bench.kept(tmp_path / "out.jsonl", {"seed": seed, "mean": math.nan})
        lines = [json.loads(x) for x in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert lines[-1] == {"seed": seed, "mean": None} and len(lines) == seed + 1
