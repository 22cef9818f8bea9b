"""The benchmark of steering, dry, on the tiny model: every part writes what it counted, and a limit ends it in time."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from tiny_model import build_model, hooks_of

ROOT = Path(__file__).parents[1]


@pytest.fixture
def steering(monkeypatch: pytest.MonkeyPatch, tok):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import steering

    made = []

    def load(_name, **_kwargs):
        made.append(build_model(len(tok), tok.eos_token_id))
        return made[-1], tok

    monkeypatch.setattr("steer_heal_love.ground.models.load", load)
    every = steering.tries
    monkeypatch.setattr(steering, "tries", lambda bed, w: itertools.islice(every(bed, w), 2))
    monkeypatch.setattr(steering, "methods", {"mean_diff": steering.methods["mean_diff"]})
    steering.made = made
    return steering


def run(steering, out, *more):
    argv = [
        "--out",
        str(out),
        "--personas",
        "love",
        "--seeds",
        "0",
        "--nats",
        "0.3",
        "0.6",
        "--small",
        "--device",
        "cpu",
    ]
    return steering.main([*argv, *more])


def test_every_part_counts_what_it_did_and_is_read_back(steering, tmp_path):
    found = run(steering, tmp_path / "out")
    ranked = {(r["method"], r["operation"], r["nats"]) for r in found["ranking"]}
    assert ranked >= {("mean_diff", "add", 0.3), ("mean_diff", "add", 0.6), ("random", "add", 0.6)}
    for r in found["ranking"]:
        assert r["trait"]["n"] == 4 and r["coherent"]["n"] == 4 and len(r["kl_nats"]) == 1
    modes = {r["mode"]: r for r in found["yield"]}
    assert len(modes) == 7 and modes["rewind"]["kept"]["n"] == 12
    assert {d["what"] for d in found["done"]} == set(steering.PARTS)
    assert found["healed"] or found["stopped"]
    assert hooks_of(steering.made[0]) == 0
    again = steering.main(["--out", str(tmp_path / "out"), "--collect"])
    assert again == found == json.loads((tmp_path / "out" / "steering.json").read_text())


def test_nothing_begins_once_the_limit_has_passed(steering, tmp_path):
    found = run(steering, tmp_path / "out", "--limit", "0")
    assert found["ranking"] == found["yield"] == found["healed"] == found["done"] == []
