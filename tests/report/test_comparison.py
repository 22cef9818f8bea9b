"""A comparison made up without a model: its table, its plot, its page; what a model wrote is escaped."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from steer_heal_love import report
from steer_heal_love.ground import records
from steer_heal_love.ground.declared import columns
from steer_heal_love.ground.errors import UserError
from steer_heal_love.report import above, comparison, comparison_html, frontiers

NASTY = "<script>alert(1)</script>"


def score(mean: float | None, by: float = 0.1) -> dict[str, Any]:
    if mean is None:
        return {"mean": None, "lo": None, "hi": None, "n": 0}
    return {"mean": mean, "lo": mean - by, "hi": mean + by, "n": 12}


def method(
    name: str,
    slope: float,
    costs: list[float],
    at: list[float | None],
    reached: int = 2,
    kind: str = "healed",
) -> dict[str, Any]:
    points = [
        {
            "strength": i + 0.5,
            "seeds": 2,
            "scores": {
                n: score(k if n == "neutral_kl" else slope * k**0.5, 0.01)
                for n in (s.name for s in columns())
            },
        }
        for i, k in enumerate(costs)
    ]
    rows = [
        {
            "budget": b,
            "reached": reached if v is not None else 0,
            "seeds": 2,
            "trait_shift": score(v),
            "own_excess": score(v and v / 2),
            "above_reference": score(v and v - 0.4, 0.3),
            "verdict": v and "not told apart",
            "above_reference_alone": score(v and v - 0.4),
            "verdict_alone": v and "behind",
        }
        for b, v in zip((0.02, 0.05), at, strict=True)
    ]
    own = [
        {
            "budget": 0.1,
            "reached": 2 if costs else 0,
            "seeds": 2,
            "verdict": "not told apart" if costs else None,
            "trait_shift": {"mean": slope if costs else None, "lo": 0.1, "hi": None, "n": 12},
            "verdict_alone": "not told apart",
        }
    ]
    texts = [{"prompt": NASTY, "text": NASTY, "base": NASTY}]
    return {
        "name": name,
        "knob": "scale",
        "kind": kind,
        "points": points,
        "at": rows,
        "at_own_excess": own,
        "stopped": {},
        "seconds": 3.0,
        "samples": {"seed": 0, "strength": 0.5, "texts": texts},
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    starved = method("starved", 0.0, [], [None, None])
    starved |= {"stopped": {"1": f"nothing left {NASTY}"}, "samples": {}}
    methods = [
        method("weak", 1.0, [0.01, 0.1], [0.14, 0.22]),
        method("strong", 3.0, [0.01, 0.04, 0.1], [0.42, 0.67]),
        method("told", 1.5, [0.03], [0.21, None], reached=1, kind="prompt"),
        starved,
    ]
    data = {
        "schema": 1,
        "kind": "compare",
        "persona": NASTY,
        "model": "tiny",
        "seeds": [0, 1],
        "reference": "strong",
        "budgets": [0.02, 0.05],
        "own_excess_budgets": [0.1],
        "comparisons": 9,
        "methods": methods,
    }
    records.write_json(tmp_path / "compare.json", data)
    return tmp_path


def said(renderable: Any) -> str:
    console = Console(width=100, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_a_comparison_of_before_is_read_by_its_old_names(folder):
    found = said(report.terminal_comparison(folder))
    file = folder / "compare.json"
    data = records.read_json(file)
    data["looks"] = data.pop("comparisons")
    records.write_json(file, data)
    assert said(report.terminal_comparison(folder)) == found


def test_the_table_ranks_by_trait_and_shows_the_undefined_as_such(folder):
    lines = said(report.terminal_comparison(folder)).splitlines()
    order = [line.split()[0] for line in lines[2:6]]
    assert order == ["strong", "weak", "told", "starved"]
    assert "+0.67 [+0.57, +0.77]" in lines[2]
    assert "told *" in lines[4] and "+0.21 [+0.11, +0.31] (1/2 seeds)" in lines[4]
    assert lines[5].split() == ["starved", "–", "–", "–"] and "nan" not in "".join(lines)
    assert any("starved, seed 1: nothing left" in line for line in lines)


def test_both_axes_say_who_is_ahead_of_the_reference(folder):
    shown = said(report.terminal_comparison(folder))
    assert "at equal neutral_kl" in shown and "at equal own_excess" in shown
    assert (
        "neutral_kl 0.02, against strong: behind as the only comparison: weak, told; undefined: starved"
        in shown
    )
    assert "own_excess 0.1, against strong: not told apart: weak, told; undefined: starved" in shown
    assert "all 9 differences together" in shown and "2 seeds can't tell" in shown
    assert "+3.00 [+0.10, …]" in shown and "≥ +0.10" in shown, "ends that the strongest cell doesn't reach"
    report.write_comparison(folder)
    page = (folder / "compare.html").read_text(encoding="utf-8")
    assert "<h3>own_excess = 0.1 nats/token</h3>" in page
    assert "own_excess 0.1, against strong: not told apart: weak, told; undefined: starved" in page


def test_without_the_reference_nobody_is_ahead(folder):
    data = records.read_json(folder / "compare.json")
    records.write_json(
        folder / "compare.json", data | {"methods": [m for m in data["methods"] if m["name"] != "strong"]}
    )
    shown = said(report.terminal_comparison(folder))
    report.write_comparison(folder)
    assert "against" not in shown and "Who is ahead" not in (folder / "compare.html").read_text(
        encoding="utf-8"
    )


def test_one_by_an_earlier_version_says_how_to_make_it_anew(folder):
    data = records.read_json(folder / "compare.json")
    del data["own_excess_budgets"]
    records.write_json(folder / "compare.json", data)
    with pytest.raises(UserError, match=r"earlier version .*same shl compare makes it anew"):
        report.terminal_comparison(folder)


def test_what_no_prompt_realises_is_starred():
    starred = lambda kind, costs: comparison.traced(method("m", 1.0, costs, [0.1, 0.2], kind=kind)).starred(
        "neutral_kl"
    )
    assert starred("prompt", [0.03, 0.06]) and starred("prompt", [0.06])
    assert not starred("prompt", [0.01, 0.06]) and not starred("healed", [0.03, 0.06])
    assert not starred("prompt", [])


def test_the_page_is_self_contained_and_escapes_what_others_wrote(folder):
    report.write_comparison(folder)
    page = (folder / "compare.html").read_text(encoding="utf-8")
    assert NASTY not in page and "&lt;script&gt;" in page
    assert not re.search(r"(src|href)=\"(?!#)", page) and "<script" not in page
    for name in ("strong", "weak", "starved", "told"):
        assert f"<td>{name}" in page
    assert "1 of 2" in page and "0 of 2" in page and ">nan" not in page
    assert page.count("<svg") == len(frontiers.PLANES)
    assert (folder / "frontier.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_comparison_gives_the_same_bytes(folder):
    c = comparison.read(folder)
    assert comparison_html.render(c) == comparison_html.render(c)


def test_every_shipped_method_has_a_look_of_its_own():
    from steer_heal_love.compare import methods

    drawn = [m for m in methods.values() if not m.null]
    assert len(drawn) <= len(frontiers.STYLES) == len({repr(style) for style in frontiers.STYLES})


def test_no_comparison_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="no comparison there"):
        report.terminal_comparison(tmp_path)


def test_a_row_that_is_no_model_is_starred_in_the_sentence_about_nulls(folder):
    """A prompt whose least shot costs more than the budget is read on a line, and says so wherever it is named."""
    file = folder / "compare.json"
    data = records.read_json(file)
    null = {
        "best_null": "null_bias",
        "null_trait": score(0.1),
        "above_null": score(0.2),
        "null_verdict": "ahead",
    }
    for m in data["methods"]:
        for row in m["at"]:
            row |= null | {"above_null_alone": score(0.2), "trait_pos": score(0.1), "trait_neg": score(0.1)}
    records.write_json(file, data)
    c = comparison.read(folder)
    starred = [m.name for m in c.methods if not m.null and m.drawn(m.rows["neutral_kl"][0])]
    told = " ".join(above.headline(c))
    assert starred == ["told"] and "told* " in told and above.STARRED in told
    others = [
        m.name
        for m in c.methods
        if m.name not in starred and not m.null and m.rows["neutral_kl"][0].null.verdict
    ]
    assert others and not any(f"{name}*" in told for name in others)
