"""Trying steering before a run, on the tiny model: what is counted, what is chosen, and what a run takes of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from steer_heal_love import config, sweep
from steer_heal_love.cli import runs
from steer_heal_love.ground import records
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.overrides import override
from steer_heal_love.nouns import Score
from steer_heal_love.report import sweep as drawn
from steer_heal_love.sweep.bed import Cell
from steer_heal_love.sweep.preflight import in_span, judged, preflight, separability
from steer_heal_love.vector import Vector
from steer_heal_love.vector.iso_kl import IsoDose
from tiny_model import build_model, hooks_of

CONFIG = override(
    config.RunConfig(),
    {
        "model": "tiny",
        "vector": {"contexts": 8},
        "generate": {"prompts": 4, "max_new_tokens": 6},
        "filter": {"checks": ["nll", "on_trait"], "calibration": 8},
        "eval": {"probes": 6, "resamples": 50},
    },
)
BANDS = ((0.2, 0.5), (0.3, 0.7))


@pytest.fixture(scope="module")
def bed(tok, persona):
    net = build_model(len(tok), tok.eos_token_id)
    return sweep.laid(net, tok, persona, CONFIG, sweep.layers_of(net, BANDS))


@pytest.fixture(scope="module")
def found(bed):
    return sweep.sweep(
        bed, bands=BANDS, names=("mean_diff", "pca_diff"), operations=("add",), nats=(0.5,), floor=0.0
    )


def test_a_sweep_has_a_cell_for_every_try_and_leaves_nothing_on_the_model(bed, found):
    assert {(c.method, c.layers) for c in found.cells} == {
        (m, b) for m in ("mean_diff", "pca_diff") for b in BANDS
    }
    for c in found.cells:
        assert c.trait.n == len(c.shifts) == 6 and c.coherent.n == len(c.passed) == 4
        assert c.per_nat.mean == pytest.approx(c.trait.mean / c.dose.kl_nats)
    assert hooks_of(bed.model) == 0


def test_the_choice_has_most_trait_per_nat_and_its_lead_is_paired_with_the_default(found):
    fine = [c for c in found.cells if c.dose.reached]
    assert found.choice.per_nat.mean == max(c.per_nat.mean for c in fine)
    (default,) = (c for c in found.cells if c.method == "mean_diff" and c.layers == (0.3, 0.7))
    assert found.lead.mean == pytest.approx(found.choice.per_nat.mean - default.per_nat.mean)


def cell(name, gain, coherent, kl=1.0):
    even = lambda x: Score(x, x, x, 9)
    return Cell(
        name, "add", (0.3, 0.7), IsoDose(1.0, 0.5, kl, 9, 1), even(gain), even(gain / kl), even(coherent), 0.0
    )


def test_text_below_the_floor_and_a_dose_that_was_not_found_are_never_chosen():
    cells = [
        cell("loud", 9.0, 0.3),
        cell("far", 8.0, 1.0, kl=3.0),
        cell("fine", 1.0, 0.9),
        cell("less", 0.5, 1.0),
    ]
    assert sweep.pick(cells, 0.8).method == "fine"
    assert sweep.pick(cells[:2], 0.8) is None


def test_a_run_takes_the_choice_of_its_own_persona_and_model_only(bed, found, tmp_path, monkeypatch):
    file = tmp_path / "sweep.json"
    row = sweep.saved(found, bed, file)
    taken = sweep.load_choice(file, persona="tester", model="tiny")
    assert taken == {"method": found.choice.method, "layers": found.choice.layers, "hook": ""}
    monkeypatch.setattr(runs, "load_persona", lambda _name: bed.persona)
    assert runs.with_choice(CONFIG, file).vector == replace(CONFIG.vector, **taken)
    with pytest.raises(UserError, match="persona"):
        sweep.load_choice(file, persona="love", model="tiny")
    for change, told in (
        ({"choice": None}, "nothing was chosen"),
        ({"kind": "run"}, "vector sweep"),
        ({"choice": row["choice"] | {"operation": "gate"}}, "gate"),
        ({"choice": row["choice"] | {"layers": [0.1]}}, "shares"),
        ({"choice": row["choice"] | {"method": "magic"}}, "magic"),
        ({"choice": row["choice"] | {"hook": 3}}, "shares"),
    ):
        records.write_json(file, row | change)
        with pytest.raises(UserError, match=told):
            sweep.load_choice(file, persona="tester", model="tiny")
    at = replace(bed, config=replace(bed.config, vector=replace(bed.config.vector, hook="mlp.down_proj")))
    sweep.saved(found, at, file)
    assert sweep.load_choice(file, persona="tester", model="tiny")["hook"] == "mlp.down_proj"
    old = row["choice"] | {}
    records.write_json(file, row | {"choice": {k: v for k, v in old.items() if k != "hook"}})
    assert sweep.load_choice(file, persona="tester", model="tiny")["hook"] == "", (
        "a file of before hook points"
    )


def test_a_sweep_is_told_and_drawn_from_its_file_alone(bed, found, tmp_path):
    row = json.loads(json.dumps(sweep.saved(found, bed, tmp_path / "sweep.json")))
    drawn.write_curve(row, tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes()[:4] == b"\x89PNG"
    assert drawn.table(row).row_count == len(found.cells)
    assert found.choice.method in drawn.said(row)[0] and "trait per nat" in drawn.said(row)[1]
    usual = {"method": "mean_diff", "operation": "add", "layers": [0.3, 0.7]}
    for choice, told in ((usual, True), (usual | {"layers": [0.1, 0.4]}, False)):
        assert ("That is the default." in drawn.said(row | {"choice": choice})) == told
    assert "nothing is chosen" in drawn.said(row | {"choice": None})[0]


def test_a_preflight_has_every_part_and_a_verdict_with_reasons(bed, persona):
    other = replace(persona, name="other", pos=persona.neg, neg=persona.pos)
    found = preflight(bed, [persona, other], nats=0.5)
    assert found.cosines == pytest.approx({"other": -1.0}, abs=1e-4) and found.off_target == pytest.approx(
        1.0, abs=1e-4
    )
    assert found.verdict == "not worth it" and any("lint" in reason for reason in found.because)
    assert (
        all(0 <= s.mean <= 1 for s in found.separability.values())
        and found.effect.dose.nats == found.random.dose.nats
    )
    text = "\n".join(drawn.preflight_lines(json.loads(json.dumps(records.plain(found)))))
    assert "not worth it" in text and "AUC" in text and "above random" in text


def test_poles_apart_are_told_and_poles_alike_are_not():
    draw = torch.Generator().manual_seed(0)
    neg, noise = torch.randn(40, 6, generator=draw), torch.randn(40, 6, generator=draw)
    step, mean = torch.tensor([6.0, 0, 0, 0, 0, 0]), lambda p, n: p.mean(0) - n.mean(0)
    assert separability(neg + step, neg, mean).lo > 0.8
    alike = separability(noise, neg, mean)
    assert alike.lo < 0.5 < alike.hi or math.isclose(alike.mean, 0.5, abs_tol=0.1)


def test_the_share_in_a_span_is_that_of_the_projection():
    axis = torch.eye(4)
    v = Vector({0: 3 * axis[0] + 4 * axis[1]})
    assert in_span(v, [Vector({0: axis[0]})]) == pytest.approx(0.6)
    assert in_span(v, [Vector({0: axis[0]}), Vector({0: axis[0] + axis[1]})]) == pytest.approx(1.0)
    assert in_span(v, []) == 0.0


@pytest.mark.parametrize(("auc", "verdict"), [(1.0, "undecided"), (0.2, "not worth it")])
def test_few_contexts_leave_a_pair_undecided_and_only_a_bad_reading_speaks_against_it(found, auc, verdict):
    cell = replace(
        found.cells[0],
        trait=Score(1.0, 0.5, 1.5, 9),
        dose=replace(found.cells[0].dose, kl_nats=1.0, nats=1.0),
    )
    seen = {
        "lint": [],
        "reliability": 0.9,
        "separability": {1: Score(auc, auc - 0.8, 1.0, 2)},
        "effect": cell,
        "above_random": Score(1.0, 0.5, 1.5, 9),
        "off_target": 0.1,
    }
    assert judged(seen, 1.0)[0] == verdict
