"""Banks of vignettes: one's own, tinymfv's, and broken ones."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from steer_heal_love.evals.vignettes import balanced, load_bank
from steer_heal_love.ground.errors import UserError
from steer_heal_love.nouns import FOUNDATIONS

BAD = [
    '{"id": "a", "foundation": "Care", "see": "You see a, fine.", "you": "You do a."}',
    "not json",
    "",
    '{"id": "b", "foundation": "Kindness", "text": "You see b."}',
    '{"id": "a", "foundation": "Care", "text": "You see c."}',
    '{"id": "d", "foundation": "Care", "text": " "}',
    '{"foundation": "Care", "text": "You see e."}',
    '{"id": "f", "foundation": "Joy"}',
    '{"id": "g", "text": "You see g."}',
    '["h", "Care"]',
    '{"id": ["i"], "foundation": "Care", "text": "You see i."}',
    '{"id": "j", "foundation": "Care", "text": "You see j.", "human_Care": 80}',
]
WRONG = [
    "2: not JSON",
    "4: foundation 'Kindness'",
    "5: id 'a'",
    "6: no text",
    "7: id None",
    "8: foundation 'Joy'",
    "8: no text",
    "9: no foundation",
    "10: expected a JSON object, found list",
    "11: id ['i']",
    "12: human_",
]


def written(folder: Path, lines: list[str]) -> Path:
    file = folder / "own.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def test_every_mistake_at_once_by_line(tmp_path: Path) -> None:
    file = written(tmp_path, BAD)
    with pytest.raises(UserError) as e:
        load_bank(file)
    head, *lines = str(e.value).splitlines()
    assert head == f"{file}: {len(WRONG)} mistakes:"
    assert [line.startswith(f"  line {start}") for line, start in zip(lines, WRONG, strict=True)] == [
        True
    ] * len(WRONG)


def test_views_and_the_text_they_fall_back_to(tmp_path: Path) -> None:
    both = {"id": "a", "foundation": "Care", "see": "You see it.", "you": "You do it."}
    file = written(
        tmp_path, [json.dumps(both), json.dumps({"id": "b", "foundation": "Liberty", "text": "It is."})]
    )
    assert [v.text for v in load_bank(file)] == ["You see it.", "It is."]
    assert [v.text for v in load_bank(file, view="you")] == ["You do it.", "It is."]


def test_a_bank_without_any_labels_is_read_in_its_order(tmp_path: Path) -> None:
    rows = [{"id": i, "text": f"You see {i}."} for i in range(9)]
    bank = load_bank(written(tmp_path, [json.dumps(r) for r in rows]))
    assert {v.foundation for v in bank} == {None}
    assert [v.id for v in balanced(bank, 5)] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "no vignettes"), (b"\n\n", "no vignettes"), (b"\xff\xfe", "not UTF-8")]
)
def test_a_file_that_holds_no_bank_says_so(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "own.jsonl"
    file.write_bytes(content)
    with pytest.raises(UserError, match=words):
        load_bank(file)


def test_labels_and_shares_by_their_names_elsewhere(tmp_path: Path) -> None:
    people = {f"human_{f}": 10 * i for i, f in enumerate(FOUNDATIONS)}
    rows = [
        {"id": "a", "foundation": "Care (p, h)", "text": "A."} | people,
        {"id": "b", "foundation": "Care (e)", "foundation_coarse": "Social Norms", "text": "B."},
    ]
    a, b = load_bank(written(tmp_path, [json.dumps(r) for r in rows]))
    assert (a.foundation, b.foundation) == ("Care", "SocialNorms")
    assert a.shares == pytest.approx([i / 21 for i in range(7)])
    assert b.shares is None


def test_balanced_takes_foundations_in_turn() -> None:
    n = 2 * len(FOUNDATIONS)
    assert Counter(v.foundation for v in balanced(load_bank(), n)) == dict.fromkeys(FOUNDATIONS, 2)
