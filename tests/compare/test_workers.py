"""Seeds measured in a process of their own: a module apart, since that loads its model from a folder."""

from __future__ import annotations

import math
from typing import Any

from steer_heal_love import compare
from steer_heal_love.config import Grid
from steer_heal_love.executors import Asked, executors
from steer_heal_love.executors.local import Local
from tiny_model import build_model
from tiny_run import DEPTH, SETTINGS


def apart_by(ours: Any, theirs: Any, at: str = "") -> list[str]:
    """Where two records differ by more than rounding; seconds are let be. Two processes may round the last digit otherwise,
    which a training makes larger (1e-4 seen); another seed or setting moves every figure by far more."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        names = sorted((ours.keys() | theirs.keys()) - {"seconds"})
        return [x for k in names for x in apart_by(ours.get(k), theirs.get(k), f"{at}.{k}")]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [
            x for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) for x in apart_by(a, b, f"{at}[{i}]")
        ]
    near = (
        isinstance(ours, float)
        and isinstance(theirs, float)
        and math.isclose(ours, theirs, rel_tol=2e-3, abs_tol=1e-5)
    )
    return [] if near or repr(ours) == repr(theirs) else [f"{at}: {ours!r:.60} and {theirs!r:.60}"]


class One(Local):
    """One process for all seeds, one after the other: a second would spend most of its seconds on imports, and that two
    work at a time is tested with cheaper work in `tests/executors`."""

    def __init__(self, asked: Asked):
        super().__init__(asked)
        self.slots = 1


def test_seeds_in_a_process_of_their_own_give_the_same(tok, tmp_path, monkeypatch):
    executors.get("local")  # found before the dictionary is replaced
    monkeypatch.setattr(executors, "_items", {**executors._items, "local": One})
    build_model(len(tok), tok.eos_token_id, depth=DEPTH).save_pretrained(tmp_path / "model")
    tok.save_pretrained(tmp_path / "model")
    asked = SETTINGS | {"model": str(tmp_path / "model"), "rounds": 1}
    grid = Grid(doses=(0.5,), scales=(0.5,), budgets=(1e-4,))
    told = dict(seeds=2, methods=("prompt", "sft"), grid=grid, **asked)
    apart = compare.run(out=tmp_path / "apart", workers=2, **told)
    assert apart_by(apart, compare.run(out=tmp_path / "one", **told)) == []
    for seed in apart["seeds"]:
        starts = (tmp_path / "apart" / "seeds" / str(seed) / "events.jsonl").read_text()
        assert starts.count('"file": "base/neutral.jsonl"') == 1, "measured again in the first process"
