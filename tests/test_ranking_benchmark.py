"""The benchmark of ranking, dry, on the tiny model: every part writes cells, and a second call has nothing left to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiny_model import build_model, hooks_of

ROOT = Path(__file__).parents[1]
SMALL = ["--personas", "love", "--seeds", "0", "--nats", "0.3", "0.6", "--small", "--device", "cpu"]


@pytest.fixture
def ranking(monkeypatch: pytest.MonkeyPatch, tok):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import ranking

    net = build_model(len(tok), tok.eos_token_id)
    monkeypatch.setattr(ranking, "_model", [net, tok])
    monkeypatch.setattr(ranking, "CELLS", (("mean_diff", ""), ("linear_act", "mlp.down_proj")))
    monkeypatch.setattr(ranking, "HEALS", ())
    monkeypatch.setattr(ranking, "PASSES", 1)
    monkeypatch.setattr(ranking, "TEXTS", {"rewind": {"rewinds": 1}})
    monkeypatch.setattr(ranking, "CURVES", ("writer_svd",))
    monkeypatch.setattr(ranking.room, "BANDS", ((0.2, 0.5),))
    return ranking


@pytest.mark.long
def test_every_part_writes_its_cells_once_and_the_tables_are_read_from_the_file(ranking, tmp_path):
    out = tmp_path / "rows.jsonl"
    found = ranking.main(["--out", str(out), *SMALL])
    cells = {(r["part"], r["cell"], r["nats"]) for r in found["steered"]}
    assert cells == {
        ("rank", "mean_diff", 0.3),
        ("rank", "mean_diff", 0.6),
        ("rank", "linear_act at mlp.down_proj", 0.3),
        ("rank", "linear_act at mlp.down_proj", 0.6),
        ("curve", "writer_svd 0.2-0.5", 0.3),
        *(("condition", cell, nats) for cell in ("mean_diff", ranking.WHERE) for nats in (0.3, 0.6)),
    }
    (whole, under) = (
        next(r for r in ranking.rows(out) if (r["part"], r["cell"]) == ("condition", c))
        for c in ("mean_diff", ranking.WHERE)
    )
    for all_of, some in zip(whole["cells"], under["cells"], strict=True):
        assert {0.0, 1.0} >= set(some["left"]) and len(some["left"]) == len(some["drift"]) == 6
        assert some["drift"] == [x * m for x, m in zip(all_of["drift"], some["left"], strict=True)]
        assert some["shifts"] == [x * m for x, m in zip(all_of["shifts"], some["asked"], strict=True)]
        assert all(x > 0 for x in all_of["drift"]) and some["dose"] == all_of["dose"]
    own = next(r for r in found["steered"] if r["cell"] == "mean_diff")
    assert own["less"]["mean"] == 0.0 and own["trait"]["n"] == 4
    made = {(r["part"], r["cell"]) for r in found["healed"]} | {
        (r["part"], r["cell"]) for r in found["stopped"]
    }
    assert made == {("text", "rewind"), ("band", "mean_diff 0.3-0.7"), ("band", "mean_diff 0.6-0.9")}
    assert hooks_of(ranking._model[0]) == 0
    before = out.read_text()
    assert ranking.main(["--out", str(out), *SMALL]) == found and out.read_text() == before


def test_nothing_begins_once_the_limit_has_passed(ranking, tmp_path):
    found = ranking.main(["--out", str(tmp_path / "rows.jsonl"), *SMALL, "--limit", "0"])
    assert found["steered"] == found["healed"] == []
