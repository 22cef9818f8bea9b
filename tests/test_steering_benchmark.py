"""The benchmark of steering, dry, on the tiny model: every part writes what it counted, and a limit ends it in time."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from steer_heal_love.ground.adaptive import written
from steer_heal_love.ground.operations import Steering
from steer_heal_love.ground.policy import Policy
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
    rows = {r["mode"]: r for r in steering.read(tmp_path / "out") if r["part"] == "yield"}
    assert rows["cap"]["flops"] > rows["plain, 0.6 nats"]["flops"] > 0, "a cap reads every token twice"
    assert all(r["filter_flops"] > 0 and r["filter_seconds"] > 0 for r in rows.values())
    assert {d["what"] for d in found["done"]} == set(steering.PARTS)
    assert found["healed"] or found["stopped"]
    assert hooks_of(steering.made[0]) == 0
    again = steering.main(["--out", str(tmp_path / "out"), "--collect"])
    assert again == found == json.loads((tmp_path / "out" / "steering.json").read_text())


def test_nothing_begins_once_the_limit_has_passed(steering, tmp_path):
    found = run(steering, tmp_path / "out", "--limit", "0")
    assert found["ranking"] == found["yield"] == found["healed"] == found["done"] == []


def test_a_text_that_is_kept_counts_by_what_it_cost_and_is_paired_with_plain_text_by_seed(steering):
    row = {
        "part": "yield",
        "persona": "love",
        "coherent": [1.0, 1.0],
        "rewinds": 0,
        "tokens": [10, 30],
        "read": 80,
    }
    cost = {"seconds": 2.0, "filter_seconds": 3.0, "flops": 4e12, "filter_flops": 1e12}
    rows = [
        row | cost | {"seed": seed, "mode": mode, "kept": [1.0, kept]}
        for seed in (0, 1)
        for mode, kept in (("plain, 1 nats", 0.0), ("cap", 1.0))
    ]
    plain, cap = steering.yielded(rows)
    for price, cost in (
        ("second", 2),
        ("read_token", 80),
        ("tflop", 4),
        ("second_with_filter", 5),
        ("tflop_with_filter", 5),
    ):
        assert plain[f"kept_tokens_per_{price}"].mean == 10 / cost and plain[f"less_per_{price}"].mean == 0.0
        assert cap[f"kept_tokens_per_{price}"].mean == 40 / cost and cap[
            f"less_per_{price}"
        ].mean == pytest.approx(30 / cost)
    old = [{k: v for k, v in r.items() if "flops" not in k} for r in rows]
    assert "kept_tokens_per_tflop" not in steering.yielded(old)[0]


def test_operations_are_those_that_the_products_of_a_model_do(steering, tok):
    from floors import Counted

    net = build_model(len(tok), tok.eos_token_id)
    prompt = tuple(range(4, 13))
    write = lambda: written(
        net,
        [prompt],
        steering=Steering({1: torch.ones(32)}),
        doses=[1.0],
        policy=Policy(cap_nats=0.1),
        ends=frozenset(),
        max_new_tokens=5,
        seed=0,
    )
    write()  # how the model reads is tried at the first call
    with FlopCounterMode(display=False) as counter:
        made = write()
    did = {str(name): n for name, n in counter.get_flop_counts()["Global"].items()}
    linear = sum(n for name, n in did.items() if name in ("aten.mm", "aten.addmm"))
    shape = Counted.of(net)
    norms = sum(p.numel() for name, p in net.named_parameters() if "norm" in name and "layers" in name)
    counted = shape.flops(read=made.read, pairs=0, predicted=made.predicted)
    assert linear == counted - 2 * norms * made.read
    assert shape.flops(read=0, pairs=made.pairs, predicted=0) == shape.depth * 4 * 32 * made.pairs


def test_settings_are_given_by_name(steering):
    from shared import nested

    assert nested(["eval.probes=24", "vector.layers=[0.2,0.4]", "vector.method=pca_diff"]) == {
        "eval": {"probes": 24},
        "vector": {"layers": [0.2, 0.4], "method": "pca_diff"},
    }
