"""Seeds measured in processes of their own: a module apart, since those load their model from a folder."""

from __future__ import annotations

import math
from typing import Any

from steer_heal_love import compare
from steer_heal_love.config import Grid
from tiny_model import build_model
from tiny_run import SETTINGS


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


def test_seeds_in_processes_of_their_own_give_the_same(tok, tmp_path):
    build_model(len(tok), tok.eos_token_id).save_pretrained(tmp_path / "model")
    tok.save_pretrained(tmp_path / "model")
    asked = SETTINGS | {"model": str(tmp_path / "model"), "rounds": 1}
    grid = Grid(doses=(0.5,), scales=(0.5,), budgets=(1e-4,))
    told = dict(seeds=2, methods=("prompt", "sft"), grid=grid, **asked)
    apart = compare.run(out=tmp_path / "apart", workers=2, **told)
    assert apart_by(apart, compare.run(out=tmp_path / "one", **told)) == []
    for seed in apart["seeds"]:
        starts = (tmp_path / "apart" / "seeds" / str(seed) / "events.jsonl").read_text()
        assert starts.count('"file": "base/neutral.jsonl"') == 1, "measured again in the first process"
