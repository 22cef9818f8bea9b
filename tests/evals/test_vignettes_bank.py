"""Banks of vignettes: one's own, tinymfv's, and broken ones."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from steer_heal_love.evals.vignettes import balanced, load_bank
from steer_heal_love.ground.errors import UserError
from steer_heal_love.nouns import FOUNDATIONS

TINYMFV = Path(__file__).parents[2].parent / "shared" / "data" / "tinymfv"

BAD = [
    '{"id": "a", "foundation": "Care", "see": "You see a, fine.", "you": "You do a."}',
    "not json",
    "",
    '{"id": "b", "foundation": "Kindness", "text": "You see b."}',
    '{"id": "a", "foundation": "Care", "text": "You see c."}',
    '{"id": "d", "foundation": "Care", "text": " "}',
    '{"foundation": "Care", "text": "You see e."}',
    '{"id": "f", "foundation": "Joy"}',
]
WRONG = [
    "2: not JSON",
    "4: foundation 'Kindness'",
    "5: id 'a'",
    "6: no text",
    "7: id None",
    "8: foundation 'Joy'",
    "8: no text",
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


def test_balanced_takes_foundations_in_turn() -> None:
    n = 2 * len(FOUNDATIONS)
    assert Counter(v.foundation for v in balanced(load_bank(), n)) == dict.fromkeys(FOUNDATIONS, 2)


@pytest.mark.skipif(not TINYMFV.is_dir(), reason="needs the tinymfv JSONL files in ../shared/data/tinymfv")
def test_tinymfv_loads() -> None:
    files = sorted(TINYMFV.glob("*.jsonl"))
    assert files, f"no JSONL files in {TINYMFV}"
    banks = [load_bank(f) for f in files]
    for file, found in zip(files, banks, strict=True):
        assert len(found) == len(file.read_text(encoding="utf-8").splitlines())
        assert {v.foundation for v in found} == set(FOUNDATIONS)
    assert all({v.id for v in b} == {v.id for v in banks[0]} for b in banks)
