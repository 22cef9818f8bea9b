"""The benchmark of the rooms, on a model of a few layers: every room does the work that its figures are of."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from steer_heal_love.ground.branching_cache import BranchingCache

ROOT = Path(__file__).parents[1]


@pytest.fixture
def rooms(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import rooms

    return rooms


def run(rooms, tok, folder: Path, *more: str) -> dict:
    tok.save_pretrained(folder / "tok")
    argv = ["--shape", "tiny", "--device", "cpu", "--tokenizer", str(folder / "tok"), "--scale", "0.02"]
    rooms.main([*argv, "--repeats", "1", "--out", str(folder / "results.json"), *more])
    return json.loads((folder / "results.json").read_text())


def test_every_room_does_its_count_of_work(rooms, tok, tmp_path, monkeypatch):
    thoughts: list[int] = []
    think = BranchingCache.think

    def counting(branching, tokens, ends):
        out = think(branching, tokens, ends)
        thoughts.extend(map(len, out))
        return out

    monkeypatch.setattr(BranchingCache, "think", counting)
    found = run(rooms, tok, tmp_path)
    did = {name: r["did"] for name, r in found["rooms"].items() if "error" not in r}
    assert did.keys() == rooms.ROOMS.keys(), [r.get("traceback") for r in found["rooms"].values()]

    s, heal = found["sizes"], found["config"]["heal"]
    assert did["extract"]["pairs"] == s["pairs"]
    assert did["generate"] == {"completions": s["completions"], "tokens": s["completions"] * s["tokens"]}
    assert did["filter"] == {"completions": s["completions"], "tokens": 3 * s["completions"] * s["tokens"]}
    assert did["heal"]["samples"] == s["trained"] * s["epochs"]
    assert did["heal"]["steps"] == math.ceil(s["trained"] / heal["batch"]) * s["epochs"]
    assert did["bake"] == {"rounds": s["rounds"] + 1, "rank": (s["rounds"] + 1) * heal["rank"]}
    assert did["evaluate"]["tokens"] == s["vignettes"] * s["think"]
    assert thoughts.count(s["think"]) >= s["vignettes"]

    for r in found["rooms"].values():
        for name in (
            "seconds",
            "rate",
            "floor_seconds",
            "share_of_floor",
            "bytes",
            "peak_memory_gb",
            "warm_up_seconds",
        ):
            assert math.isfinite(r[name]) and r[name] > 0, name
    assert found["round"]["whole"]
    assert found["round"]["seconds"] == pytest.approx(sum(r["seconds"] for r in found["rooms"].values()))


def test_a_room_that_fails_is_recorded_and_the_next_goes_on(rooms, tok, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rooms, "sample", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("out of luck")))
    found = run(rooms, tok, tmp_path, "--rooms", "generate,bake")
    assert found["rooms"]["generate"]["error"] == "RuntimeError: out of luck"
    assert found["rooms"]["bake"]["rate"] > 0 and not found["round"]["whole"]
    assert "failed: RuntimeError" in capsys.readouterr().out


def test_a_decoded_token_costs_the_weights_once_and_each_cache(rooms):
    c = rooms.Counted(depth=2, layer=100, head=50, attend=8, cache=4, size=2)
    work = c.decode([10, 20], 1)
    assert work.bytes == 2 * 250 + 4 * 2 * (10.5 + 20.5)
    assert work.flops == 2 * 250 * 2 + 8 * 2 * (10.5 + 20.5)
    assert c.prefill([3], before=[10]).flops == 2 * (2 * 100 * 3 + 8 * 3 * (1.5 + 10))
