"""The panel: clean as shipped, blind to a model that does not read, falling as a model is broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from steer_heal_love import evals
from steer_heal_love.config import EvalConfig
from steer_heal_love.evals import lint_capability as lint
from steer_heal_love.evals.capability import (
    KINDS,
    WIDTH,
    Block,
    first_of_each_kind,
    load_panel,
    right_and_margin,
)
from steer_heal_love.ground.errors import UserError

PANEL = load_panel()
SUMS, FACTS = PANEL[0], next(b for b in PANEL if b.kind == "factual")


def test_what_ships_is_clean() -> None:
    assert lint.findings() == []
    assert {b.kind for b in PANEL} == set(KINDS)


def changed(block: Block, key: str, at: int, text: str) -> list[Block]:
    values = list(getattr(block, key))
    values[at] = text
    return [Block(**{**vars(block), key: tuple(values)}) if b is block else b for b in PANEL]


WRONG = {
    "few of a kind": ([b for b in PANEL if b is not FACTS], "9 blocks of factual; expected at least 10"),
    "duplicate question": (
        changed(FACTS, "questions", 0, FACTS.questions[1].upper()),
        "duplicate of panel[10]",
    ),
    "too short": (changed(FACTS, "questions", 0, "Which capital?"), "2 words; expected 4 to 14"),
    "wrong sum": (changed(SUMS, "answers", 0, "10"), "panel[0].answers[0]: '10'; 6 + 5 is 11"),
    "no sum": (changed(SUMS, "questions", 0, "What is six and five?"), "panel[0].questions[0]: no sum"),
    "digits": (
        changed(SUMS, "questions", 0, "What is 60 + 51?"),
        "panel[0].answers[0]: '11'; 60 + 51 is 111",
    ),
    "two words": (changed(FACTS, "answers", 0, "Paris, France"), "expected one word, found 'Paris, France'"),
    "given away": (
        changed(FACTS, "questions", 0, "Is Paris the capital of France?"),
        "'Paris' is in a question",
    ),
}


@pytest.mark.parametrize(("panel", "expected"), WRONG.values(), ids=WRONG.keys())
def test_rule(panel: list[Block], expected: str) -> None:
    (found,) = lint.lint_panel(panel)
    assert expected in found


def test_answers_of_one_block_have_one_length() -> None:
    block = Block("arithmetic", ("What is 1 + 1?", "What is 4 + 6?"), ("2", "10"))
    (found,) = lint.lint_sums(block, "panel[0]")
    assert "as many digits" in found


def test_chains_are_worked_out_from_left_to_right() -> None:
    assert lint.worked_out("3 + 4 + 5") == 12
    assert lint.worked_out("72 divided by 8") == 9
    assert lint.worked_out("7 divided by 2") == 3.5
    assert lint.worked_out("2 plus 3 times 4") == 20


BAD = """
[[blocks]]
kind = "spelling"
questions = ["a", "b", "c"]
answers = ["1", "2", "3", "3"]
[[blocks]]
kind = "format"
questions = ["a", "b", "c", 4]
answers = ["1", "2", "3", "4"]
start = 5
hint = "x"
"""


def test_every_mistake_of_a_panel_at_once(tmp_path: Path) -> None:
    file = tmp_path / "panel.toml"
    file.write_text(BAD)
    with pytest.raises(UserError) as e:
        load_panel(file)
    head, *lines = str(e.value).splitlines()
    wrong = [
        "blocks[0].kind: 'spelling'",
        "blocks[0].questions: expected 4 texts",
        "blocks[0].answers: expected 4 different",
        "blocks[1].questions: expected texts",
        "blocks[1].start",
        "blocks[1].hint: unknown key",
    ]
    assert head == f"{file}: {len(wrong)} mistakes:"
    assert all(line.startswith(f"  {start}") for line, start in zip(lines, wrong, strict=True)), lines


@pytest.mark.parametrize(
    ("text", "words"), [("blocks = 3", "tables"), ("blocks = [", "not TOML"), (None, "No such file")]
)
def test_a_file_that_is_no_panel_is_a_user_error(tmp_path: Path, text: str | None, words: str) -> None:
    file = tmp_path / "panel.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match=words):
        load_panel(file)


def test_a_model_that_does_not_read_is_at_chance() -> None:
    tastes = np.random.default_rng(0).normal(size=(20, 1, WIDTH)).repeat(WIDTH, 1)
    right, margin = right_and_margin(tastes)
    assert right.mean() == 1 / WIDTH
    assert np.allclose(margin.mean(1), 0)


def test_a_model_that_knows_is_right_whatever_it_likes_to_say() -> None:
    knows = -3.0 * np.eye(WIDTH) + np.array([0.0, -9.0, 4.0, 1.0])
    right, margin = right_and_margin(knows[None])
    assert right.min() == 1.0
    assert margin.mean() == pytest.approx(3.0)
    wrong, negative = right_and_margin(knows[None][:, ::-1])
    assert wrong.max() == 0.0 and negative.mean() < 0


def test_items_by_kind_and_over_all(tiny, persona) -> None:
    subject = evals.Subject(
        tiny.model, tiny.tok, persona, EvalConfig(instruments=("capability",), capability_blocks=2), []
    )
    items = evals.collect_items(subject, evals.measure(subject))
    for name in ("capability", "capability_margin"):
        parts = [items[f"{name}.{kind}"] for kind in KINDS]
        assert [len(p) for p in parts] == [2 * WIDTH] * 3
        assert items[name] == [value for part in parts for value in part]
    assert set(items["capability"]) <= {0.0, 1.0}


def test_blocks_are_chosen_from_each_kind() -> None:
    assert [b.kind for b in first_of_each_kind(PANEL, 1)] == list(KINDS)
    assert first_of_each_kind(PANEL, 99) == sorted(PANEL, key=lambda b: KINDS.index(b.kind))


def test_shifts_are_paired_with_base_and_left_out_where_base_has_none() -> None:
    base, now = {"capability": [1.0, 0.0, 1.0]}, {"capability": [0.0, 0.0, 1.0]}
    found = evals.scores(now, base, resamples=200)
    assert found["capability"].mean == pytest.approx(1 / 3)
    assert found["capability_shift"].mean == pytest.approx(-1 / 3)
    assert "capability_shift" not in evals.scores(now, {}, resamples=200)


def test_questions_of_a_block_count_as_one_item():
    """They share their answers, so one wrong answer is often another's too."""
    base = {"capability": [1.0] * 24, "capability.facts": [1.0] * 24}
    now = {name: [0.0] * 4 + [1.0] * 20 for name in base}
    found = evals.scores(now, base, resamples=500)
    assert (
        found["capability_shift"].n == 6 and found["capability_shift"].lo < 0 < found["capability_shift"].hi
    )
    assert found["capability"].mean == pytest.approx(20 / 24) and found["capability"].lo < 0.6
    assert found["capability"] == found["capability.facts"]
    assert 0.5 < evals.scores(base, base, resamples=500)["capability"].lo < 1.0, "all right is no certainty"
