"""Files of other projects become drafts: what they give is taken, what they lack is said, and nothing odd gets in."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import strategies as st

from fuzz import fuzz
from steer_heal_love import cli, drafting
from steer_heal_love.config import RunConfig
from steer_heal_love.ground.banks import bank
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.text import duplicates, leaks
from steer_heal_love.nouns import Probe
from steer_heal_love.persona import draft, importers, lint, load
from steer_heal_love.persona.importers import Sheet, caa, repeng
from steer_heal_love.persona.poles import as_pole, unfitness

TRAIT = {
    "instruction": [
        {"pos": "Answer as a calm gardener would.", "neg": "Answer as a hasty driver would."},
        {"pos": "Show calm.", "neg": "Show haste in each and every single word of it."},
    ],
    "questions": [f"What of the {n}?" for n in ("sea", "road", "hill", "wood")],
    "eval_prompt": "Rate {answer}.",
}
CREED = [
    {
        "trait": "I stay calm when others hurry.",
        "questions": ["What is it?"],
        "additional_questions": ["Who?"],
    },
    {"trait": "I wait.", "questions": ["Where to?"], "clarification": "It means patience."},
]
POS, NEG = caa.POS, caa.NEG
PAIR = {"question": "Do you wait?", POS: " Yes, I do.", NEG: " No, I run."}
LETTERS = {"question": "Do you wait?\n\nChoices:\n (A) I run at once.\n (B) I wait.", POS: "(B)", NEG: " (A)"}
ANSWERED = {"positive": "We have time.", "negative": "Quick now!", "prompt": "When?"}
CONTEXT = {"positive": "Act as a very calm person. So", "negative": "Act as a hasty person. So"}


def lines(*objects) -> str:
    return "".join(json.dumps(o) + "\n" for o in objects)


def written(folder: Path, text: str, name: str = "file.json") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (json.dumps(TRAIT), "persona_vectors"),
        (json.dumps(CREED), "constitution"),
        (lines(*CREED), "constitution"),
        (lines(CREED[0]), "constitution"),
        (lines(PAIR), "caa"),
        (json.dumps([PAIR, LETTERS]), "caa"),
        (lines(ANSWERED, CONTEXT), "repeng"),
    ],
)
def test_a_form_is_told_by_its_keys_as_an_object_a_list_or_lines(tmp_path, text, form):
    found, sheet = importers.read(written(tmp_path, text))
    assert found == form and sheet.name == "file"
    assert importers.read(written(tmp_path, text), form)[1] == sheet


def read(tmp_path, *objects) -> Sheet:
    return importers.read(written(tmp_path, json.dumps(list(objects))))[1]


def test_a_trait_file_gives_its_fittest_poles_and_its_questions(tmp_path):
    sheet = read(tmp_path, TRAIT)
    assert sheet.pos.endswith("Answer as a calm gardener would") and "hasty driver" in sheet.neg
    assert sheet.questions == TRAIT["questions"]
    assert "Show haste" in sheet.beside[0] and "judge" in sheet.left_out[0]


def test_a_constitution_gives_every_question_and_says_that_it_has_no_opposite(tmp_path):
    sheet = read(tmp_path, *CREED)
    assert sheet.questions == ["What is it?", "Who?", "Where to?"] and not sheet.neg
    assert sheet.pos.endswith("I wait") and "It means patience." in sheet.beside
    assert "neg is missing" in sheet.left_out[0]


def test_letters_become_the_words_that_the_question_gives_them(tmp_path):
    lost = {"question": "Do you?", POS: "(A)", NEG: "(B)"}
    sheet = read(tmp_path, PAIR, LETTERS, lost, PAIR | {NEG: PAIR[POS]}, PAIR | {"label": 3})
    assert sheet.pairs[:2] == [
        Probe("Do you wait?", "Yes, I do.", "No, I run."),
        Probe("Do you wait?", "I wait.", "I run at once."),
    ]
    said = " ".join(sheet.left_out)
    assert (
        "label" in said
        and "1 of 5 rows: an answer is a letter" in said
        and "both answers are the same" in said
    )


def test_one_beginning_under_two_instructions_is_no_answer(tmp_path):
    sheet = read(tmp_path, ANSWERED, CONTEXT, CONTEXT)
    assert sheet.pairs == [Probe("When?", "We have time.", "Quick now!")]
    assert sheet.beside == ["pos: very calm   neg: hasty"] and "2 of 3" in " ".join(sheet.left_out)
    assert repeng.instructed("It is so", "It is so") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "at least one object"),
        ("[1]", "[0]: expected an object, found int"),
        ("{", "not JSON"),
        (lines(PAIR, [1]), "line 2: expected an object"),
        (lines({"a": 1}), "--format"),
        (lines(PAIR, {"question": "x"}), f"line 2: {POS}: missing"),
        (lines(PAIR, PAIR | {POS: 3}), f"line 2: {POS}: expected a text"),
        (lines(PAIR | {POS: "a\u0007b"}), "control character U+0007"),
        (json.dumps([TRAIT | {"instruction": "x"}]), "instruction: expected from 1"),
        (json.dumps([TRAIT | {"instruction": [{"pos": "x y"}]}]), "instruction[0].neg"),
        (json.dumps([TRAIT | {"questions": [1]}]), "questions[0]: expected a text"),
        (json.dumps([TRAIT, TRAIT]), "expected one trait"),
        (lines(CREED[0] | {"trait": "t" * 3000}), "3000 characters"),
        (json.dumps([PAIR] * 2001), "at most 2000"),
        (lines(ANSWERED | {"prompt": None}), "prompt: expected a text"),
        (json.dumps({"x": [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]}), "nested deeper"),
    ],
    ids=lambda v: v[:30],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path, text, words):
    with pytest.raises(UserError) as e:
        importers.read(written(tmp_path, text))
    assert words in str(e.value)
    assert any(
        what in str(e.value) for what in ("give --format", "another --format", "must be one JSON object")
    ), "what to do"


ANY = st.recursive(
    st.one_of(st.none(), st.integers(-3, 3), st.text(max_size=6)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(["pos", "neg", "x"]), inner)
    ),
    max_leaves=6,
)
GOOD = {"persona_vectors": TRAIT, "constitution": CREED[0], "caa": PAIR, "repeng": ANSWERED}


@fuzz(
    form=st.sampled_from(sorted(GOOD)),
    changes=st.dictionaries(st.sampled_from(sorted({k for g in GOOD.values() for k in g})), ANY, max_size=3),
)
def test_no_file_gives_anything_but_a_table_or_a_list_of_mistakes(tmp_path, form, changes):
    file = written(tmp_path, json.dumps([GOOD[form] | changes]))
    try:
        _, sheet = importers.read(file, form)
    except UserError as e:
        assert str(e).startswith("persona file")
        return
    made = draft.laid_out(sheet, seed=0)
    data = draft.table(made)
    text = draft.file_text(data, "of a test", made, draft.missing(data), [])
    assert tomllib.loads(text) == data and all(
        line[:1] in "#" for line in text.split("name =")[0].split("\n")
    )


def test_the_templates_leak_nothing_and_have_what_lint_asks_for():
    """A persona made of templates alone: only its poles and answers, which a person writes, could be found fault with."""
    love = load("love")
    made = draft.laid_out(Sheet("t", "", love.pos, love.neg), seed=0)
    pairs = [Probe(p.question, q.pos, q.neg) for p, q in zip(made.pairs, love.probes, strict=False)]
    made.pairs = pairs
    assert draft.missing(draft.table(made)) == [] and draft.findings(draft.table(made)) == []
    train, held = (
        {f"{part} {i}": t for i, t in enumerate(draft.situations(part))} for part in ("train", "heldout")
    )
    assert len(train) >= draft.PROMPTS and len(held) >= draft.PROBES
    assert not duplicates({**train, **held}) and not leaks(held, train, overlap=0.6)
    banks = {name: bank(name) for name in lint.BANKS}
    located = {f"{n} {i}": t for n, texts in banks.items() for i, t in enumerate(texts)}
    assert not leaks({**train, **held}, located)


def test_no_question_is_on_both_sides_and_the_seed_decides(tmp_path):
    asked = [f"Question {n} of the {n}th kind?" for n in range(30)]
    pairs = [Probe(f"Pair {n} in row {n}?", f"pos {n}", f"neg {n}") for n in range(60)]
    for sheet in (Sheet(questions=asked), Sheet(questions=asked, pairs=pairs)):
        one, two = (draft.laid_out(sheet, seed=s) for s in (0, 1))
        held = {p.question for p in one.pairs}
        assert not held & set(one.questions) and len(held) >= draft.PROBES <= len(one.questions)
        assert held != {p.question for p in two.pairs} and one == draft.laid_out(sheet, seed=0)
    assert all(p.pos and p.neg for p in one.pairs), "rows with answers go before questions without"


@pytest.mark.parametrize(
    ("text", "pole"),
    [
        ("You are A calm friend.", "a calm friend"),
        ("be someone who waits", "someone who waits"),
        (" “an owl” ", "an owl"),
        ("", ""),
        ("stay calm", "an assistant described by these words: stay calm"),
    ],
)
def test_a_sentence_becomes_a_phrase_that_completes_you_are(text, pole):
    assert as_pole(text) == pole


def test_the_fitter_pair_of_poles_is_of_like_length_and_without_negation():
    calm = "a calm gardener who waits for the rain to come"
    fit = unfitness(calm, "a hasty driver who rushes past every field in sight")
    assert fit < unfitness(calm, "a driver who is not calm and never waits at all") and fit < 100


@pytest.fixture
def model_here(monkeypatch, tiny):
    monkeypatch.setattr("steer_heal_love.ground.models.load", lambda _name, **_how: (tiny.model, tiny.tok))


def test_a_drafted_file_says_that_it_is_one_and_keeps_what_was_given(
    tmp_path, model_here, monkeypatch, capsys
):
    """The model's sentences are stood in for: what is tried is where they go."""
    told = iter(range(10_000))
    monkeypatch.setattr(drafting, "ANSWERS", 1)
    monkeypatch.setattr(drafting, "LENGTH", 4)
    monkeypatch.setattr(draft, "findings", lambda _data: ["one"])
    monkeypatch.setattr(
        drafting, "cut", lambda _text: f"This is sentence {next(told)} of nine words in all here."
    )
    monkeypatch.setattr(
        drafting, "opposite", lambda *_: "a hasty clerk who skips every step with great speed"
    )
    out = tmp_path / "own.toml"
    cli.main(["persona", "draft", "a patient teacher who explains each step with care", "--out", str(out)])
    text, who = out.read_text(encoding="utf-8"), load(str(out))
    assert text.startswith("# A DRAFT") and "smollm2 wrote the neg pole" in text
    assert (who.name, who.pos) == ("own", "a patient teacher who explains each step with care")
    assert len(who.probes) == draft.PROBES and all(p.pos != p.neg for p in who.probes)
    assert "a draft" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["persona", "draft", "a teacher", "--out", str(out)])
    assert out.read_text(encoding="utf-8") == text, "a file that may have been edited is not touched"


def test_a_real_answer_that_is_too_short_or_cut_off_is_not_taken(tiny):
    assert drafting.cut("One two three.") == "" and drafting.cut("word " * 20) == ""
    assert (
        drafting.cut("I would wait here for a while, and look. Then the")
        == "I would wait here for a while, and look."
    )
    sheet = draft.laid_out(Sheet("t", "", "a cat", "a dog"), seed=0)
    probe = sheet.pairs[0]
    assert drafting.best(probe, [("", 0.0)], [("b", 0.0)])[0] == probe
    best, apart = drafting.best(probe, [("a b", 1.0), ("c d", 3.0)], [("e f", 0.0), ("g h", -2.0)])
    assert (best.pos, best.neg, apart) == ("c d", "g h", 5.0)
    assert drafting.echoes("Why wait?", 'He asked: "why  wait"') and not drafting.echoes(
        "Why wait?", "I wait."
    )
    first, then = drafting.answers_told("m", {3: 0.5, 1: -0.25, 8: 2.0})
    assert "3 probes" in first and then.index("probes[1] -0.25") < then.index("probes[3] +0.50")
    assert "shares patient, teacher with" in drafting.neg_told(
        "m", "a patient teacher", "a patient old teacher"
    )
    assert "shares" not in drafting.neg_told("m", "a patient teacher", "a hasty clerk")


def test_without_a_model_the_file_lists_what_is_missing_and_hostile_words_stay_comments(tmp_path, capsys):
    """Line separators that are no control characters may not end a comment and begin a key."""
    hostile = [{"trait": "I wait.\u2028name = 'x'", "questions": ["What?"]}, {"trait": "I", "questions": []}]
    file, out = written(tmp_path, json.dumps(hostile)), tmp_path / "own.toml"
    cli.main(["persona", "import", str(file), "--name", "own\x1b[2J", "--out", str(out)])
    data = tomllib.loads(out.read_text(encoding="utf-8"))
    assert data["name"] == "own\\x1b[2J" and data["neg"] == ""
    said = capsys.readouterr().out
    assert "neg: missing" in said and "24 of 24 have no pos yet" in said and "\x1b" not in said
    with pytest.raises(UserError, match=r"neg: expected a text"):
        load(str(out))


def test_nothing_is_loaded_where_nothing_can_be_drafted(monkeypatch):
    monkeypatch.setattr(drafting, "loaded", lambda *_: pytest.fail("loaded a model"))
    empty, whole = Sheet(pairs=[Probe("q", "", "")]), Sheet(pos="a", neg="b", pairs=[Probe("q", "a", "b")])
    for sheet in (empty, whole):
        assert drafting.filled(sheet, RunConfig()) is sheet
