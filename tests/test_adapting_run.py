"""A round whose dose is given in nats and whose text is written adaptively; and a comparison of steering methods by name."""

from __future__ import annotations

import json

import pytest

from steer_heal_love import compare, loop
from steer_heal_love.compare.study import named
from steer_heal_love.config import Grid
from steer_heal_love.ground.errors import UserError
from steer_heal_love.vector import Vector
from test_loop import SETTINGS
from tiny_model import build_model, hooks_of

SMALL = SETTINGS | {
    "rounds": 1,
    "walk": SETTINGS["walk"] | {"kind": "iso_kl", "nats": 0.3},
    "eval": SETTINGS["eval"]
    | {"instruments": ["neutral", "probes", "samples"], "transfer": "off", "nulls": False, "wordings": False},
}


@pytest.fixture
def made(tok, monkeypatch):
    models = []

    def load(_name, **_kwargs):
        models.append(build_model(len(tok), tok.eos_token_id))
        return models[-1], tok

    monkeypatch.setattr("steer_heal_love.ground.models.load", load)
    monkeypatch.setattr("steer_heal_love.report.write", lambda _runs, _to, **_: None)
    return models


def test_a_run_takes_its_dose_in_nats_and_writes_its_text_adaptively(made, tmp_path):
    adapt = {"operation": "gate", "half_life": 6.0, "cap_nats": 0.5, "rewinds": 1, "window": 3}
    run = loop.run(out=str(tmp_path), adapt=adapt, **SMALL)
    told = json.loads((run.folder.round(0) / "dose.json").read_text())
    assert told["nats"] == 0.3 and told["n"] > 0 and told["dose"] in [t["dose"] for t in told["tried"]]
    assert run.rounds[0].walk.dose == told["dose"] and set(run.rounds[0].walk.survival) == {told["dose"]}
    assert hooks_of(made[0]) == 0


def test_a_map_at_a_linear_module_steers_a_whole_run_and_what_is_carried_is_read_there(made, tmp_path):
    how = {"vector": {**SMALL.get("vector", {}), "method": "linear_act", "hook": "mlp.down_proj"}}
    how["eval"] = SMALL["eval"] | {"transfer": "cosine"}
    with pytest.raises(UserError, match="gate doesn't take what the method linear_act finds"):
        loop.run(out=str(tmp_path), **(SMALL | how | {"adapt": {"operation": "gate"}}))
    run = loop.run(out=str(tmp_path), **(SMALL | how))
    for name in ("vector", "shift"):
        v = Vector.load(run.folder.round(0) / f"{name}.safetensors")
        assert v.place.hook == "mlp.down_proj" and v.place.operation == (
            "transport" if name == "vector" else ""
        )
    carried = run.rounds[0].transfer
    assert -1 <= carried["cosine"] <= 1 and run.history and hooks_of(made[-1]) == 0


def test_methods_by_name_are_compared_and_unknown_parts_are_refused(made, tmp_path):
    small = {k: v for k, v in SMALL.items() if k != "out"}
    grid = Grid(doses=(0.5, 1.0), scales=(1.0,), budgets=(1e3,), own_budgets=(1e3,))
    names = ("steered:pca_diff:rotate", "steered:linear_act", "healed:logistic")
    found = compare.run(out=tmp_path / "out", seeds=1, methods=names, grid=grid, **small)
    assert [m["name"] for m in found["methods"]] == list(names)
    assert (
        tmp_path / "out" / "seeds" / "3" / "methods" / "steered-pca_diff-rotate" / "1" / "scores.json"
    ).is_file()
    assert named("steered:unrelated").name == "steered:unrelated" and named("healed:random").kind == "healed"
    for wrong, words in (
        ("baked:pca_diff", "baked"),
        ("healed:magic", "magic"),
        ("steered:pca_diff:turn", "turn"),
        ("healed:pca_diff:add", "healed"),
        ("steered:linear_act:gate", "gate"),
        ("steered:mean_diff:transport", "transport"),
    ):
        with pytest.raises(UserError, match=words):
            named(wrong)
