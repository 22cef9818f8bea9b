"""Authority against Care by forced choice, with the format measures below, where a run has them and only there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from steer_heal_love import report
from steer_heal_love.ground import folder as files
from steer_heal_love.nouns import Score

FORCED = {
    "mfv_fc.Authority": -0.1,
    "mfv_fc.Care": 0.2,
    "p_ans_any": 0.9,
    "json_is_valid": 0.8,
    "ppx_json": 3.0,
}
PUBLISHED = {"tinymfv.Authority": -0.1, "tinymfv.Care": 0.2, "tinymfv_p_ans_any": 0.9}


def measured(run, scores: dict[str, float]) -> None:
    for file in (run / "base" / "scores.json", *sorted(run.glob("rounds/*/scores.json"))):
        told = {k: Score(v, v - 0.05, v + 0.05, 35) for k, v in scores.items()}
        files.save_stages([replace(s, scores=s.scores | told) for s in files.load_stages(file)], file)


@pytest.mark.parametrize(
    ("scores", "titles"),
    [
        (
            FORCED,
            (
                "Forced choice: Authority and Care",
                "Mass on the allowed answers by round",
                "JSON closed on an allowed number by round",
                "Perplexity of the forced JSON by round",
            ),
        ),
        (PUBLISHED, ("tinymfv: Authority and Care", "tinymfv: mass on the allowed answers by round")),
    ],
)
def test_it_is_drawn_with_its_format_measures(fabricate, tmp_path, scores, titles):
    run = fabricate("run", rounds=2)
    report.write([run], tmp_path / "without.html")
    measured(run, scores)
    report.write([run], tmp_path / "with.html")
    without, with_ = ((tmp_path / f"{name}.html").read_text() for name in ("without", "with"))
    assert "<h2>Forced choice</h2>" in with_ and "<h2>Forced choice</h2>" not in without
    for title in titles:
        assert f'aria-label="{title}"' in with_ and f'aria-label="{title}"' not in without
    assert with_.index(titles[0]) < with_.index(titles[1])
