"""The shipped vignettes and answers are clean; each rule finds what breaks it, and nothing else."""

from __future__ import annotations

import pytest

from steer_heal_love.evals import lint
from steer_heal_love.evals.vignettes import answers, load_bank
from steer_heal_love.nouns import FOUNDATIONS

ROWS = [
    {"id": s.id, "foundation": s.foundation, "see": s.text, "you": y.text}
    for s, y in zip(load_bank(view="see"), load_bank(view="you"), strict=True)
]
CARE = [row for row in ROWS if row["foundation"] == "Care"]
ANSWERS = answers()


def row(**changes: str) -> list[dict[str, str]]:
    return [ROWS[0] | changes, *ROWS[1:]]


def sentence(foundation: str, text: str) -> dict[str, list[str]]:
    return ANSWERS | {foundation: [text, *ANSWERS[foundation][1:]]}


VIGNETTES = {
    "few of a foundation": (
        [r for r in ROWS if r not in CARE[14:]],
        "vignettes: 14 of Care; expected at least 15",
    ),
    "duplicate id": (row(id=ROWS[1]["id"]), f"id {ROWS[1]['id']!r} occurs 2 times"),
    "duplicate text": (row(you=ROWS[1]["you"].upper().replace("YOU", "You", 1)), "vignettes[1].you"),
    "the same text in both views": (row(you=ROWS[0]["see"]), "vignettes[0].you"),
    "opening of see": (row(see="A tailor is seen pinning maps to a sleeping dog."), "expected 'You see '"),
    "opening of you": (row(you="Your tailor pins maps to a sleeping dog."), "expected 'You '"),
    "too short": (row(you="You pin maps to dogs."), "5 words; expected 6 to 26"),
    "too long": (row(see="You see a tailor" + " pin maps" * 12), "28 words; expected 6 to 26"),
    "moral word": (row(you="You unfairly pin maps to a sleeping dog."), "moral word 'unfairly'"),
    "moral word, whole": (row(see="You see a tailor doing a wrong thing to a dog."), "moral word 'wrong'"),
}


def test_what_ships_is_clean() -> None:
    assert lint.findings() == []


@pytest.mark.parametrize(("rows", "expected"), VIGNETTES.values(), ids=VIGNETTES.keys())
def test_vignette_rule(rows: list[dict[str, str]], expected: str) -> None:
    (found,) = lint.lint_vignettes(rows)
    assert expected in found


BAD_ANSWERS = {
    "missing foundation": ({f: t for f, t in ANSWERS.items() if f != "Liberty"}, "answers.Liberty: missing"),
    "foundation of no such name": (
        ANSWERS | {"Joy": [f"{t} Yes." for t in ANSWERS["Care"]]},
        "answers.Joy: no such",
    ),
    "unequal counts": (ANSWERS | {"Care": ANSWERS["Care"][:-1]}, "answers: unequal counts"),
    "unlike in length": (sentence("Care", ANSWERS["Care"][0] + " It truly is."), "answers[0]: word counts"),
    "duplicate sentence": (
        sentence("Care", ANSWERS["Fairness"][0].upper()),
        "answers.Fairness[0]: duplicate of answers.Care[0]",
    ),
}


@pytest.mark.parametrize(("sentences", "expected"), BAD_ANSWERS.values(), ids=BAD_ANSWERS.keys())
def test_answer_rule(sentences: dict[str, list[str]], expected: str) -> None:
    (found,) = lint.lint_answers(sentences)
    assert expected in found


def test_seven_foundations_ship() -> None:
    assert tuple(ANSWERS) == FOUNDATIONS
