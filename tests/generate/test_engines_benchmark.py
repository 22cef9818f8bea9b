"""The benchmark of engines, dry: rows and tokens are those that were asked for, and parity is counted by row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steer_heal_love.generate.engine import Engine, engines

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import engines as bench

    return bench


def test_rates_and_parity_are_of_the_rows_that_were_asked_for(bench, tok, tmp_path, monkeypatch):
    """An engine that is the reference but for the last token of every second row."""
    ours = engines["own"]
    monkeypatch.setattr(engines, "_items", dict(engines._items))

    def write(model, tok, order):
        rows = ours.write(model, tok, order)
        return [(*r[:-1], r[-1] + 1) if i % 2 else r for i, r in enumerate(rows)]

    engines.register("twin", Engine("twin", write, lambda *_: None, lambda *_: None))
    tok.save_pretrained(tmp_path / "tok")
    argv = [
        "--shape",
        "small",
        "--device",
        "cpu",
        "--tokenizer",
        str(tmp_path / "tok"),
        "--rows",
        "6",
        "--tokens",
        "4",
    ]
    argv += ["--repeats", "2", "--engines", "own", "twin", "--out", str(tmp_path / "out.json")]
    bench.main(argv)
    found = json.loads((tmp_path / "out.json").read_text())
    for engine in found["engines"].values():
        assert set(engine["cases"]) == {"plain", "mixed", "dose 0", "dose 0.5", "dose 1"}
        for case in engine["cases"].values():
            assert case["tokens"] == 24 and case["repeats_equal"]
            assert 0 < case["least"] <= case["tokens_per_second"] <= case["most"]
    for case in found["parity"]["twin"].values():
        assert case == {"rows": 6, "equal": 3, "first_difference": pytest.approx((3 * 1 + 3 * 0.75) / 6)}
    assert found["engines"]["twin"]["reload_seconds"] is not None and "own" not in found["parity"]
