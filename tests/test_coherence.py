"""The evidence for the filter: its statistics on values worked out by hand, and its figures from the files that are shipped."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import steer_heal_love as shl
from steer_heal_love import filter as sieve
from steer_heal_love.ground import records
from steer_heal_love.nouns import Completion, Tokens

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "coherence"


@pytest.fixture
def separation(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import separation

    return separation


@pytest.fixture
def coherence(separation):
    import coherence

    return coherence


@pytest.fixture
def made(separation):
    """Forty prompts of three texts, a third broken; two inputs that rise with it, one that says nothing."""
    rng = np.random.default_rng(0)
    kinds = np.array(["soup" if i % 6 == 0 else "loop" if i % 6 == 3 else "coherent" for i in range(120)])
    x = rng.normal(size=(120, 3)) + np.stack(
        [2.0 * (kinds == "soup"), 2.0 * (kinds == "loop"), kinds == "x"], 1
    )
    return x, separation.Labelled(kinds, np.array([f"p{i // 3}" for i in range(120)]))


def test_kappa_of_a_table_by_hand(separation):
    """20 and 15 agreed, 5 and 10 not: observed 0.7, by chance 0.5."""
    pairs = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    assert separation.kappa(pairs) == pytest.approx(0.4)
    assert separation.kappa([("y", "y"), ("n", "n")]) == 1.0


def test_area_by_hand(separation):
    broken = np.array([False, False, True, True])
    area = lambda *values: separation.area(np.array(values), broken)
    assert area(1.0, 2.0, 3.0, 4.0) == 1.0
    assert area(3.0, 1.0, 2.0, 4.0) == 0.75
    assert area(3.0, 1.0, 3.0, 0.0) == 0.375
    assert np.isnan(separation.area(np.ones(2), np.array([True, True])))


def test_the_interval_is_over_prompts(separation):
    """One prompt of a hundred alike texts is one draw: the interval is as wide as with one text of it."""
    values = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 3.5])
    labelled = lambda n: separation.Labelled(
        np.array(["coherent", "soup"] * 3 * n), np.array(["a", "a", "b", "b", "c", "c"] * n)
    )
    low, high = separation.interval(values, labelled(1))
    assert (low, high) == separation.interval(np.tile(values, 100), labelled(100))
    assert low < separation.area(values, labelled(1).broken) < high


def test_precision_recall_and_what_is_lost_at_a_recall(separation):
    broken = np.array([True, True, True, True, False, False])
    falls = np.array([True, True, False, False, True, False])
    assert separation.precision_recall(falls, broken) == (pytest.approx(2 / 3), 0.5)
    values = np.array([9.0, 7.0, 5.0, 1.0, 6.0, 0.5])
    assert [separation.lost(values, broken, r) for r in (0.5, 0.75, 1.0)] == [0.0, 0.5, 0.5]


def test_one_of_two_that_lose_the_same_loses_no_more(separation, made):
    x, texts = made
    assert separation.lost_more(x[:, 0], 2 * x[:, 0] + 1, texts, 0.9, resamples=50) == (0.0, 0.0)
    low, _ = separation.lost_more(x[:, 2], texts.broken + 0.0, texts, 0.9, resamples=50)
    assert low > 0.3


def test_a_union_falls_where_any_of_its_checks_does(separation):
    own = np.stack([np.arange(11.0), np.arange(11.0)[::-1] * 10], 1)
    values = np.array([[5.0, 0.0], [5.0, 90.0], [99.0, 20.0], [-1.0, -1.0]])
    assert separation.union(values, own) == pytest.approx([0.5, 0.9, 1.0, 0.0])


def test_no_prompt_is_trained_on_and_held_out(separation, made, monkeypatch):
    x, texts = made
    held = []

    def watched(x, texts, seen, kinds, own):
        assert not set(texts.prompts[seen]) & set(texts.prompts[~seen])
        held.append(~seen)
        return x[:, 0]

    monkeypatch.setattr(separation, "combined", watched)
    separation.held_out(x, texts, ("soup",), seed=3, recall=0.9)
    assert len(held) == separation.FOLDS and (np.sum(held, 0) == 1).all()


def test_a_text_is_judged_without_its_own_label(separation, made):
    x, texts = made
    mine = texts.prompts == "p7"
    turned = np.where(mine, np.where(texts.broken, "coherent", "soup"), texts.kinds)
    held = lambda t: separation.held_out(x, t, ("soup", "loop"), seed=0, recall=0.9)
    (value, falls), (other, falls_too) = held(texts), held(separation.Labelled(turned, texts.prompts))
    assert (value[mine] == other[mine]).all() and (falls[mine] == falls_too[mine]).all()
    assert not np.allclose(value[~mine], other[~mine])
    assert separation.area(value, texts.broken) > 0.8


def test_inputs_are_standardised_by_the_training_folds_alone(separation, made):
    x, texts = made
    seen = separation.folds(texts, 0) != 0
    value = separation.combined(x, texts, seen, ("soup", "loop"))
    shifted = x + 100.0 * ~seen[:, None]
    assert (separation.combined(shifted, texts, seen, ("soup", "loop"))[seen] == value[seen]).all()
    scaled = separation.combined(1000 * x + 5, texts, seen, ("soup", "loop"))
    assert scaled == pytest.approx(value, rel=1e-3)
    own = x[:30]
    by_own = separation.combined(x, texts, seen, ("soup", "loop"), own)
    assert separation.combined(8 * x, texts, seen, ("soup", "loop"), 8 * own) == pytest.approx(
        by_own, rel=1e-3
    )
    assert not np.allclose(by_own, value)


def test_a_reading_says_what_is_broken_coherent_or_left_out(coherence):
    pairs = [
        ("soup", "loop"),
        ("soup", "coherent"),
        ("coherent", "foreign"),
        ("coherent", "refusing"),
        ("coherent",) * 2,
    ]
    found = {name: [read(*p) for p in pairs] for name, read in coherence.READINGS.items()}
    assert found == {
        "both": ["soup", None, None, None, "coherent"],
        "reader A": ["soup", "soup", "coherent", "coherent", "coherent"],
        "reader B": ["loop", "coherent", "foreign", None, "coherent"],
        "either": ["soup", "soup", "foreign", None, "coherent"],
    }


def test_the_readme_says_what_the_shipped_files_give(coherence):
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    said = re.search(r"Cohen's kappa (\S+) over the labels, (\S+) over broken", page).groups()
    assert said == tuple(f"{k:.2f}" for k in coherence.agreement(FOLDER))
    rows = {"both": "both", "reader A": "reader A", "reader B": "reader B", "either": r"either [^|]*"}
    for reading, title in rows.items():
        s = coherence.load(FOLDER, reading)
        value, falls, _ = coherence.separated(s, coherence.COMBINED["four"], coherence.BROKEN)
        low, high = coherence.interval(value, s.texts)
        precision, recall = coherence.precision_recall(falls, s.texts.broken)
        area = f"{coherence.area(value, s.texts.broken):.3f}"
        want = f"| {len(s.ids)} | {s.texts.broken.sum()} | {area} [{low:.3f}, {high:.3f}] | "
        tail = f" | {precision:.2f} | {recall:.2f} | {falls[~s.texts.broken].mean():.2f} |"
        (line,) = re.findall(rf"^\| {title} \| \d.*$", page, re.MULTILINE)
        assert want in line and line.endswith(tail), (line, want, tail)
        if reading == "both":
            headline = f"**nll, both repeats and order, a kind each** | **{area}** [{low:.3f}, {high:.3f}]"
            assert headline in page and f"AUC {area} [{low:.3f}, {high:.3f}], held out" in page


def test_the_likely_texts_are_the_likely_ones_and_what_falls_is_said(coherence):
    main, here = coherence.load(FOLDER), FOLDER / "likely"
    assert set(coherence.labels(here)) == set(coherence.picked(main, here))
    s = coherence.load(here)
    value, cut = coherence.transferred(main, s)
    falls = value >= cut
    of = " | ".join(str(falls[s.texts.kinds == k].sum()) for k in coherence.BROKEN)
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"| nll, both repeats and order, a kind each | {of} | " in page


@pytest.mark.parametrize("folder", [FOLDER, FOLDER / "likely"])
def test_signals_of_the_text_alone_are_what_the_checks_say_now(folder):
    signals = {r["id"]: r for r in records.read_jsonl(folder / "signals.jsonl")}
    for r in records.read_jsonl(folder / "texts.jsonl"):
        completion = Completion(
            r["prompt"], Tokens((1,), tuple(r["answer"])), r["text"], r["dose"], r["ended"]
        )
        scored = sieve.Scored(completion, shl.persona(r["persona"]), *[torch.zeros(0)] * 4)
        for name in ("narration", "refusal", "length", "odd_chars", "repeat_words", "repeat_chars"):
            found = sieve.checks[name].value(scored)
            assert found == signals[r["id"]][name], (r["id"], name)
