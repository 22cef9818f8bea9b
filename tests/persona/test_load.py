"""What a user may get wrong in a persona, told in full and at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from steer_heal_love.ground.errors import UserError
from steer_heal_love.nouns import FOUNDATIONS
from steer_heal_love.persona import load, names, path

GOOD = """
name = "calm"
axis = "calm versus haste"
pos = "a calm friend."
neg = "a hasty friend."
[intent]
Care = 1
[prompts]
elicit = ["One?", "Two?", "Three?", "Four?"]
plain = ["Five?", "Six?", "Seven?", "Eight?"]
""" + "".join(f'[[probes]]\nquestion = "Q{i}?"\npos = "Slow {i}."\nneg = "Quick {i}."\n' for i in range(4))

BAD = """
name = ""
axis = 3
pos = "a calm friend"
colour = "red"
[intent]
Kindness = 1
Care = 2
[prompts]
elicit = ["One?", "", 3, "Four?"]
plain = ["Five?"]
[[probes]]
question = "Q?"
pos = "Slow."
[[probes]]
question = " "
pos = "Slow."
neg = 4
[[probes]]
question = "R?"
pos = "Slow."
neg = "Quick."
[[probes]]
question = "S?"
pos = "Slower."
neg = "Quicker."
"""
WRONG = (
    "name",
    "axis",
    "neg",
    "unknown key 'colour'",
    "intent.Kindness",
    "intent.Care",
    "prompts.elicit[1]",
    "prompts.elicit[2]",
    "prompts.plain",
    "probes[0].neg",
    "probes[1].question",
    "probes[1].neg",
)


def written(folder: Path, text: str | bytes) -> str:
    file = folder / "own.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(file)


def refused(name: str) -> str:
    with pytest.raises(UserError) as e:
        load(name)
    return str(e.value)


@pytest.mark.parametrize("name", names())
def test_shipped_persona_loads_under_its_file_name(name: str) -> None:
    persona = load(name)
    assert persona.name == name == path(name).stem
    assert tuple(persona.intent) == FOUNDATIONS


@pytest.mark.parametrize("name", names())
def test_shipped_probes_are_of_both_kinds_with_third_answers_and_some_are_kept_apart(name: str) -> None:
    persona = load(name)
    for probes, least in ((persona.probes, 48), (persona.confirmation, 16)):
        assert len(probes) >= least and all(p.neutral and p.off_topic for p in probes)
        plain = sum(p.kind == "plain" for p in probes)
        assert len(probes) / 5 < plain < len(probes) / 2


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    persona = load(written(tmp_path, GOOD))
    assert persona.system("pos") == "You are a calm friend."
    assert persona.intent == {f: int(f == "Care") for f in FOUNDATIONS}
    assert len(persona.elicit) == len(persona.plain) == len(persona.probes) == 4


def test_every_mistake_at_once_by_key(tmp_path: Path) -> None:
    file = written(tmp_path, BAD)
    head, *lines = refused(file).splitlines()
    assert head == f"{file}: {len(WRONG)} mistakes:"
    assert sorted(line.strip().split(":")[0] for line in lines) == sorted(WRONG)


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("intent = 3", "intent: expected a table"),
        ("prompts = 3", "prompts.elicit: "),
        ("probes = 3", "probes: expected"),
    ],
)
def test_a_value_in_place_of_a_table(tmp_path: Path, section: str, expected: str) -> None:
    assert expected in refused(written(tmp_path, section))


def test_unknown_name_lists_what_exists_and_the_nearest() -> None:
    message = refused("honest")
    assert "Did you mean 'honesty'?" in message
    assert all(name in message for name in names())


def test_missing_path(tmp_path: Path) -> None:
    file = str(tmp_path / "none.toml")
    assert refused(file) == f"persona file {file!r} does not exist."


@pytest.mark.parametrize("content", [b'name = "calm', b"\xff\xfe not text"])
def test_not_toml(tmp_path: Path, content: bytes) -> None:
    file = written(tmp_path, content)
    assert refused(file).startswith(f"{file}: not TOML: ")


CONFIRMATION = '[[confirmation]]\nquestion = "C?"\npos = "Slow."\nneg = "Quick."\n'


def test_third_answers_and_confirmation_are_read(tmp_path: Path) -> None:
    text = GOOD + 'neutral = "Three."\noff_topic = "Blue."\n' + CONFIRMATION
    persona = load(written(tmp_path, text))
    assert (persona.probes[3].neutral, persona.probes[3].off_topic) == ("Three.", "Blue.")
    assert (persona.probes[0].neutral, persona.probes[0].off_topic) == ("", "")
    assert {p.kind for p in persona.probes} == {"elicit"}
    (only,) = persona.confirmation
    assert (only.question, only.pos, only.neg) == ("C?", "Slow.", "Quick.")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("neutral = 4\n", "probes[3].neutral: expected a text, found 4"),
        ('off_topic = " "\n', "probes[3].off_topic: expected a text"),
        (CONFIRMATION.replace('neg = "Quick."', ""), "confirmation[0].neg: missing"),
        ('kind = "odd"\n', "probes[3].kind: expected elicit or plain, found 'odd'"),
    ],
)
def test_mistakes_in_them_are_told(tmp_path: Path, more: str, expected: str) -> None:
    assert expected in refused(written(tmp_path, GOOD + more))
