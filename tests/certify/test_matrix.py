"""`shl matrix` on a tiny model: a cell is what `shl eval` measures, and the cells share one error."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from test_certify import CONFIG, adapter, base

from steer_heal_love import alone, certify, cli, presets
from steer_heal_love.certify import matrix
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.stats import unpaired
from steer_heal_love.nouns import Score, Stage

__all__ = ["adapter", "base"]
PERSONAS = ("love", "joy")


def test_a_cell_is_what_eval_measures_and_a_run_knows_its_own(base, adapter, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(presets, "fitting", lambda *_: CONFIG)
    (adapter / "persona.toml").write_text('name = "joy"\n')
    out = tmp_path / "matrix.json"
    on = ["--base", "tiny", "--device", "cpu"]
    cli.main(["matrix", str(adapter), *on, "--persona", *PERSONAS, "--out", str(out)])
    (row,) = json.loads(out.read_text())["rows"]
    assert set(row["cells"]) == set(PERSONAS) and row["persona"] == "joy"
    for who in PERSONAS:
        same = alone.evaluate(
            replace(CONFIG, persona=who, eval=replace(CONFIG.eval, instruments=("probes",))), adapter=adapter
        )
        assert row["cells"][who]["trait_shift"]["mean"] == pytest.approx(same.scores["trait_shift"].mean)
    assert row["target"] == str(adapter) and "own less others" in capsys.readouterr().out


def stages(shift: float, n: int = 24) -> tuple[Stage, Stage]:
    """A model that moved by about so much, and its base."""
    draw = np.random.default_rng(0)
    trait = draw.normal(0, 1, n)
    moved = trait + shift + draw.normal(0, 0.1, n)
    healed = Stage(0, "healed", {"trait_shift": Score.undefined()}, {"trait": moved.tolist()})
    return healed, Stage(-1, "base", {}, {"trait": trait.tolist()})


def test_own_less_others_and_cells_hold_together() -> None:
    found = {"love": stages(0.5), "joy": stages(0.2), "hope": stages(0.1)}
    one, many = (matrix.target_row("x", "love", found, rows=rows, resamples=500) for rows in (1, 10))
    shifts = {who: np.subtract(s.items["trait"], b.items["trait"]).tolist() for who, (s, b) in found.items()}
    assert one.own_less_others == unpaired(shifts["love"], shifts["joy"] + shifts["hope"])
    assert one.own_less_others.lo > 0.2
    for who in found:
        narrow, wide = (r.cells[who]["trait_shift"] for r in (one, many))
        assert wide.lo < narrow.lo < narrow.hi < wide.hi
    assert np.isnan(matrix.target_row("x", "", found, rows=1, resamples=100).own_less_others.mean)


def test_targets_of_two_bases_are_no_matrix() -> None:
    aims = [(certify.Target("a", "smollm2"), ""), (certify.Target("b", "gemma3-270m"), "")]
    with pytest.raises(UserError, match="one base"):
        matrix.matrix(aims, PERSONAS, CONFIG)


def test_a_matrix_of_eight_by_eight_fits_eighty_columns():
    """Every figure, every name and every path is there whole."""
    from rich.console import Console

    from steer_heal_love.report import matrix as page

    names = ("authority", "gratitude", "honesty", "hope", "joy", "love", "tradition", "wonder")
    score = lambda i, j: Score((i - j) / 10, (i - j) / 10 - 0.05, (i - j) / 10 + 0.05, 16)
    rows = [
        matrix.Row(
            f"runs/20261126T070104Z-{who}-smollm2-s0",
            who if i else "",
            {w: {"trait_shift": score(i, j)} for j, w in enumerate(names)},
            score(i, 0),
        )
        for i, who in enumerate(names)
    ]
    console = Console(width=80)
    with console.capture() as said:
        console.print(page.table(rows))
    text = said.get()
    assert "…" not in text and max(map(len, text.splitlines())) <= 80
    assert all(
        f"{(i - j) / 10:+.2f}".replace("-", "−") + ("" if i == j else "*") in text
        for i in range(8)
        for j in range(8)
    )
    assert all(who in text and f"{who}-smollm2-s0" in text for who in names)
