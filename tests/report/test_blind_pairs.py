"""Blind pairs: nothing that the reader sees tells the sides apart, and the score undoes the blinding."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.stats import wilson

spec = importlib.util.spec_from_file_location(
    "blind_pairs", Path(__file__).parents[2] / "tools" / "blind_pairs.py"
)
blind_pairs = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = blind_pairs
spec.loader.exec_module(blind_pairs)


def asked(shown):
    return {row["id"]: row["prompt"] for row in shown}


PAIRS = [blind_pairs.Pair(f"question {i}", f"base {i}", f"healed {i}", "run") for i in range(30)]


def test_the_key_says_which_side_is_healed_and_half_are_on_each():
    shown, key = blind_pairs.blinded(PAIRS, 20, seed=3)
    assert len(shown) == len(key) == 20 and sum(k["healed"] == "A" for k in key) == 10
    for s, k in zip(shown, key, strict=True):
        other = "B" if k["healed"] == "A" else "A"
        assert s["id"] == k["id"] and s[k["healed"]].startswith("healed") and s[other].startswith("base")
        assert set(s) == {"id", "prompt", "A", "B"}
    assert blind_pairs.blinded(PAIRS, 20, seed=3) == (shown, key) != blind_pairs.blinded(PAIRS, 20, seed=4)


def test_equal_texts_and_repeats_make_no_pair():
    same = blind_pairs.Pair("q", "text ", "text", "run")
    assert len(blind_pairs.blinded([*PAIRS[:2], *PAIRS[:2], same], 20, seed=0)[0]) == 2


@pytest.mark.parametrize(("prefers", "wins"), [("healed", 20), ("base", 0)])
def test_a_reader_who_always_prefers_one_model_is_read_so(prefers, wins):
    shown, key = blind_pairs.blinded(PAIRS, 20, seed=5)
    chosen = {s["id"]: next(side for side in "AB" if s[side].startswith(prefers)) for s in shown}
    found = blind_pairs.scored(key, chosen, asked(shown))
    assert (found["wins"], found["losses"], found["picked_A"]) == (wins, 20 - wins, 0.5)
    assert found["interval"] == wilson(wins / 20, 20)


def test_ties_and_gaps_are_counted_and_leave_the_rate_alone():
    shown, key = blind_pairs.blinded(PAIRS, 4, seed=0)
    right, wrong = key[0]["healed"], "AB".replace(key[1]["healed"], "")
    found = blind_pairs.scored(key, {1: right, 2: wrong, 3: "TIE"}, asked(shown))
    assert (found["wins"], found["losses"], found["ties"], found["unanswered"]) == (1, 1, 1, 1)
    assert found["win_rate"] == 0.5
    assert blind_pairs.scored(key, {1: "TIE"}, asked(shown))["win_rate"] is None


def test_pairs_of_one_question_count_once_and_two_readers_are_compared():
    pairs = [blind_pairs.Pair(f"question {i % 3}", f"base {i}", f"healed {i}", "run") for i in range(30)]
    shown, key = blind_pairs.blinded(pairs, 30, seed=5)
    won = {s["id"]: next(side for side in "AB" if s[side].startswith("healed")) for s in shown}
    lost = {i: "AB".replace(side, "") for i, side in won.items()}
    zero = {s["id"] for s in shown if s["prompt"] == "question 0"}
    found = blind_pairs.scored(key, {i: (lost if i in zero else won)[i] for i in won}, asked(shown))
    assert found["win_rate"] == pytest.approx(2 / 3) and found["by_question"]["questions"] == 3
    assert found["by_question"]["win_rate"] == pytest.approx(2 / 3)
    width = lambda pair: pair[1] - pair[0]
    assert width(found["by_question"]["interval"]) > 2 * width(found["interval"])
    same, opposite = blind_pairs.agreement(won, won), blind_pairs.agreement(won, lost)
    assert (same["same"], same["kappa"]) == (1.0, 1.0) and opposite["same"] == 0 and opposite["kappa"] < 0


def test_answers_are_read_as_lines_or_json_and_nonsense_is_told(tmp_path):
    file = tmp_path / "answers.txt"
    file.write_text('1 A\n\n2: tie\n{"id": 3, "choice": "b"}\n')
    assert blind_pairs.answers(file) == {1: "A", 2: "TIE", 3: "B"}
    for text, says in (("1 A\n1 B\n", "already"), ("one A\n", "line 1"), ("4 C\n", "A, B or tie")):
        file.write_text(text)
        with pytest.raises(UserError, match=says):
            blind_pairs.answers(file)
    with pytest.raises(UserError, match="there are not"):
        blind_pairs.scored(blind_pairs.blinded(PAIRS, 4, seed=0)[1], {9: "A"}, {})


def test_a_text_of_a_model_makes_no_heading():
    shown, _ = blind_pairs.blinded([blind_pairs.Pair("q", "# 1\n## 2", "", "run")], 5, seed=0)
    text = blind_pairs.page(shown, "a warm soul")
    assert [line for line in text.splitlines() if line.startswith("#")] == ["# 1 pairs", "## 1"]


def test_a_runs_own_samples_make_pairs_and_the_answers_are_scored(fabricate, tmp_path, capsys):
    run, out = fabricate("run"), tmp_path / "pairs"
    blind_pairs.main(["write", str(run), "--out", str(out), "--pairs", "10"])
    shown = [json.loads(line) for line in (out / "pairs.jsonl").read_text().splitlines()]
    asked = blind_pairs.questions(blind_pairs.read(run))
    assert shown and {s["prompt"] for s in shown} <= asked
    (tmp_path / "answers.txt").write_text("".join(f"{s['id']} A\n" for s in shown))
    capsys.readouterr()
    blind_pairs.main(["score", str(out), str(tmp_path / "answers.txt")])
    found = json.loads(capsys.readouterr().out)
    assert found["wins"] + found["losses"] == len(shown) and found["picked_A"] == 1
    blind_pairs.main(["score", str(out), *[str(tmp_path / "answers.txt")] * 3])
    three = json.loads(capsys.readouterr().out)
    assert three["readers"] == [found] * 3 and [a["readers"] for a in three["agreement"]] == [
        [0, 1],
        [0, 2],
        [1, 2],
    ]
    blind_pairs.main(
        ["write", str(run), "--out", str(tmp_path / "told"), "--pairs", "10", "--against", "prompt"]
    )
    told = json.loads((tmp_path / "told" / "key.json").read_text())
    shown = [json.loads(line) for line in (tmp_path / "told" / "pairs.jsonl").read_text().splitlines()]
    prompted = blind_pairs.texts(blind_pairs.read(run).stage("prompt"))
    assert told["against"] == "prompt" and shown
    for row, key in zip(shown, told["pairs"], strict=True):
        assert row["AB".replace(key["healed"], "")] in prompted[row["prompt"]]
        assert row["prompt"] not in str(key), "the score takes questions from the pairs, so that old keys do"


def test_runs_are_asked_other_questions_as_far_as_these_go():
    asked = [blind_pairs.in_turn(["a", "b", "c", "d"], k * 3, 3) for k in range(3)]
    assert asked == [["a", "b", "c"], ["d", "a", "b"], ["c", "d", "a"]]


def test_answers_that_differ_by_spaces_alone_are_shown_once():
    pairs = [blind_pairs.Pair(f"q{i}", "same" + " " * i, f"healed {i}", f"run {i}") for i in range(3)]
    assert len(blind_pairs.blinded(pairs, 9, seed=0)[0]) == 1
