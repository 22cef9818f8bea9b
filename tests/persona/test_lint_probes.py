"""Third answers are whole and of like length; confirmation probes are new, and only attitude tells their answers apart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from steer_heal_love.nouns import Persona
from steer_heal_love.persona import lint, load, names

GOOD = load("love")
FIRST, SECOND = GOOD.confirmation[:2]
TWENTY = " ".join(["leaf"] * 20) + "."


def probe(**changes: str) -> Persona:
    return replace(GOOD, probes=(replace(GOOD.probes[0], **changes), *GOOD.probes[1:]))


def confirmation(**changes: str) -> Persona:
    return replace(GOOD, confirmation=(replace(FIRST, **changes), *GOOD.confirmation[1:]))


def words(n: int) -> str:
    return " ".join(f"leaf{i}" for i in range(n)) + "."


BAD = {
    "one neutral answer missing": (probe(neutral=""), "probes[0].neutral: missing; 47 probes have one"),
    "neutral answer too long": (
        probe(pos=words(20), neg=TWENTY, neutral="One " + words(25), off_topic="One " + words(24)),
        "probes[0].neutral: 26 words, pos 20",
    ),
    "off-topic answer too short": (
        probe(pos=words(20), neg=TWENTY, neutral="One " + words(14), off_topic=words(14)),
        "probes[0].off_topic: 14 words, pos 20",
    ),
    "an answer twice": (probe(off_topic=GOOD.probes[1].off_topic), "probes[1].off_topic: duplicate of"),
    "few confirmation probes": (
        replace(GOOD, confirmation=GOOD.confirmation[:15]),
        "confirmation: 15; expected at least 16",
    ),
    "confirmation answer missing": (confirmation(neutral=""), "confirmation[0].neutral: missing"),
    "confirmation answer of another length": (
        confirmation(pos=words(16), neutral=words(24), off_topic=words(20)),
        "confirmation[0].neutral: 24 words, pos 16",
    ),
    "confirmation question is a prompt": (
        confirmation(question=GOOD.elicit[4].lower()),
        "confirmation[0].question: leak",
    ),
    "confirmation question is another's": (
        confirmation(question=SECOND.question),
        "confirmation[1].question: duplicate of confirmation[0].question",
    ),
    "you in one pole's answers": (
        confirmation(pos=FIRST.pos + " You, you, you, you."),
        "confirmation: 'you'",
    ),
    "an answer that names its pole": (
        confirmation(neg=FIRST.neg.replace("usual", "mechanical")),
        "confirmation[0].neg: names its pole: mechanical",
    ),
}


@pytest.mark.parametrize(("persona", "expected"), BAD.values(), ids=BAD.keys())
def test_rule(persona: Persona, expected: str) -> None:
    found = lint.lint_persona(persona)
    assert any(expected in f for f in found)
    assert lint.lint_persona(GOOD) == []


@pytest.mark.parametrize("name", names())
def test_what_ships_is_whole(name: str) -> None:
    for p in (*load(name).probes, *load(name).confirmation):
        assert bool(p.neutral) == bool(p.off_topic)


def test_a_persona_without_them_is_clean() -> None:
    bare = [replace(p, neutral="", off_topic="") for p in GOOD.probes]
    assert lint.lint_persona(replace(GOOD, probes=tuple(bare), confirmation=())) == []
