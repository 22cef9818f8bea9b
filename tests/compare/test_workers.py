"""Seeds measured in processes of their own: a module apart, since those load their model from a folder."""

from __future__ import annotations

from steer_heal_love import compare
from steer_heal_love.config import Grid
from test_loop import SETTINGS
from tiny_model import build_model


def test_seeds_in_processes_of_their_own_give_the_same(tok, tmp_path):
    without_seconds = lambda found: (
        found | {"methods": [{k: v for k, v in m.items() if k != "seconds"} for m in found["methods"]]}
    )
    build_model(len(tok), tok.eos_token_id).save_pretrained(tmp_path / "model")
    tok.save_pretrained(tmp_path / "model")
    asked = SETTINGS | {"model": str(tmp_path / "model"), "rounds": 1}
    grid = Grid(doses=(0.5,), scales=(0.5,), budgets=(1e-4,))
    told = dict(seeds=2, methods=("prompt", "sft"), grid=grid, **asked)
    apart = compare.run(out=tmp_path / "apart", workers=2, **told)
    assert without_seconds(apart) == without_seconds(compare.run(out=tmp_path / "one", **told))
    for seed in apart["seeds"]:
        starts = (tmp_path / "apart" / "seeds" / str(seed) / "events.jsonl").read_text()
        assert starts.count('"file": "base/neutral.jsonl"') == 1, "measured again in the first process"
