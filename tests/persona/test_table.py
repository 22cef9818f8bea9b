"""What a persona's file may not be: read as something else than was meant, or too large to be read at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli_w
from hypothesis import strategies as st

from fuzz import fuzz
from steer_heal_love.ground.errors import UserError
from steer_heal_love.persona import load
from steer_heal_love.persona.table import mistakes


def good() -> dict:
    return {
        "name": "calm",
        "axis": "calm versus haste",
        "pos": "a calm friend",
        "neg": "a hasty friend",
        "intent": {"Care": 1},
        "prompts": {"elicit": [f"What is {n}?" for n in "abcd"], "plain": [f"Name {n}." for n in "abcd"]},
        "probes": [
            {"question": f"Is it {n}?", "pos": f"Slowly {n}.", "neg": f"Quickly {n}."} for n in "abcd"
        ],
    }


def changed(**changes) -> dict:
    return good() | changes


def probe(**changes) -> dict:
    return changed(probes=[good()["probes"][0] | changes, *good()["probes"][1:]])


def test_a_good_one_has_no_mistakes():
    assert mistakes(good()) == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (changed(neg="A  Calm friend!"), "pos, neg: the poles are the same"),
        (changed(pos="..."), "pos: expected words"),
        (changed(neg="。。"), "neg: expected words"),
        (probe(neg="slowly, A"), "probes[0]: pos and neg are the same"),
        (probe(questoin="x"), "probes[0]: unknown key 'questoin'"),
        (probe(questoin="x"), "did you mean 'question'"),
        (changed(intent={"Care": True}), "intent.Care: expected -1, 0 or 1, found True"),
        (changed(intent={"Care": 1.0}), "found 1.0"),
        (changed(nam="x"), "did you mean 'name'"),
        (changed(prompts=good()["prompts"] | {"elict": []}), "did you mean 'elicit'"),
        (changed(pos="long " * 1000), "pos: 5000 characters, at most 2000"),
        (probe(question="q" * 9000), "probes[0].question: 9000 characters"),
        (changed(name=True), "name: expected a text, found True"),
        (changed(probes=[3] * 4), "probes[0].question: expected a text, found 3"),
        (changed(prompts=good()["prompts"] | {"plain": ["x"] * 2_001}), "at most 2000"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_mistake_is_named(data, words):
    assert words in "\n".join(mistakes(data))


@pytest.mark.parametrize("pos", ["एक शांत मित्र", "一位温暖的朋友", "เพื่อนที่ใจเย็น", "صديق هادئ"])
def test_poles_of_other_scripts_are_words(tmp_path, pos):
    file = tmp_path / "own.toml"
    file.write_text(tomli_w.dumps(changed(pos=pos)), encoding="utf-8")
    assert load(str(file)).pos == pos


def refused(folder: Path, text: str) -> str:
    (folder / "own.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as e:
        load(str(folder / "own.toml"))
    return str(e.value)


def test_a_text_of_ten_megabytes_is_refused_unread(tmp_path):
    said = refused(tmp_path, tomli_w.dumps(changed(pos="word " * 2_000_000)))
    assert "more than 4 MB" in said and len(said) < 500


def test_control_characters_and_numbers_that_are_none_are_told_with_all_other_mistakes(tmp_path):
    text = tomli_w.dumps(
        changed(name="calm\x1b[2J", pos="a calm\x00friend", colour="red", intent={"Care": 2**70})
    )
    said = refused(tmp_path, text)
    for words in (
        "4 mistakes",
        "name: the text holds the control character U+001B",
        "pos: the text holds",
        "colour",
        "intent.Care: an integer of more",
    ):
        assert words in said
    assert "\x1b" not in said and "\0" not in said


def test_byte_order_mark_and_windows_line_ends(tmp_path):
    file = tmp_path / "own.toml"
    file.write_bytes(b"\xef\xbb\xbf" + tomli_w.dumps(good()).replace("\n", "\r\n").encode())
    assert load(str(file)).name == "calm"


ANY = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.text(max_size=6)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(
            st.sampled_from(["Care", "elicit", "plain", "question", "pos", "neg", "x"]), inner, max_size=4
        ),
    ),
    max_leaves=8,
)


@fuzz(changes=st.dictionaries(st.sampled_from([*good(), "colour"]), ANY, max_size=3))
def test_no_table_is_anything_but_fine_or_listed(changes):
    wrong = mistakes(changed(**changes))
    assert all(isinstance(m, str) and m for m in wrong)
    if set(changes) - set(good()):
        assert wrong
