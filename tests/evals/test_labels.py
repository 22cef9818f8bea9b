"""Agreement with labels: by definition, by hand, and at the edges."""

from __future__ import annotations

import math

import numpy as np
import pytest

from steer_heal_love.evals.labels import against_labels, informedness, inverse_temperature, log_softmax
from steer_heal_love.ground.stats import bootstrap
from steer_heal_love.nouns import FOUNDATIONS

DRAW = np.random.default_rng(0)
LABELS = DRAW.integers(0, 7, 60)
GUESSES = np.where(DRAW.random(60) < 0.4, LABELS, DRAW.integers(0, 7, 60))


def names(labels: np.ndarray) -> list[str | None]:
    return [FOUNDATIONS[i] for i in labels]


def youden(guess: np.ndarray, label: np.ndarray) -> float:
    """Macro J by definition: true minus false positive rate of each label, averaged."""
    return float(
        np.mean([(guess[label == c] == c).mean() - (guess[label != c] == c).mean() for c in set(label)])
    )


@pytest.mark.parametrize("labels", [LABELS, LABELS % 3, np.minimum(LABELS, 1)])
def test_the_mean_of_the_parts_is_the_macro_j(labels):
    assert informedness(GUESSES, labels).mean() == pytest.approx(youden(GUESSES, labels))


@pytest.mark.parametrize(
    ("guess", "j"), [(LABELS, 1.0), (np.full(60, 2), 0.0), (np.full(60, LABELS[0]), 0.0)]
)
def test_all_right_is_one_and_always_the_same_guess_is_none(guess, j):
    assert informedness(guess, LABELS).mean() == pytest.approx(j)


@pytest.mark.parametrize("n, skill", [(126, 0.3), (126, 0.8), (48, 0.5)])
def test_the_interval_of_the_macro_j_covers(n, skill):
    """Right with chance `skill`, else any of seven: J is the skill. The items depend on the label counts as well."""
    g, frequent = np.random.default_rng(n), [0.25, 0.2, 0.15, 0.12, 0.1, 0.1, 0.08]
    hits = 0
    for i in range(400):
        label = g.choice(7, n, p=frequent)
        guess = np.where(g.random(n) < skill, label, g.integers(0, 7, n))
        s = bootstrap(informedness(guess, label).tolist(), resamples=300, seed=i)
        hits += s.lo <= skill <= s.hi
    assert 0.93 <= hits / 400 <= 0.995


def test_one_label_alone_has_no_false_positives_so_j_is_undefined():
    assert np.isnan(informedness(GUESSES, np.zeros(60, int))).all()


def test_the_temperature_is_the_minimum_of_the_soft_nll():
    score, people = DRAW.normal(size=(40, 7)), DRAW.dirichlet(np.ones(7), 40)
    score += 0.7 * np.log(people)
    loss = lambda b: -(people * log_softmax(b * score)).sum(1).mean()
    beta = inverse_temperature(score, people)
    assert beta > 0.1
    assert loss(beta) <= min(loss(b) for b in np.linspace(0, 3 * beta, 500)) + 1e-9


def test_scores_that_say_the_opposite_are_worth_no_more_than_none():
    people = np.eye(7)[LABELS]
    assert inverse_temperature(-people, people) == 0
    items = against_labels("m", -people, names(LABELS), [None] * 60)
    assert np.mean(items["m_soft_nll"]) == pytest.approx(math.log(7))
    assert math.isnan(items["m_temperature"][0])


def test_a_foundation_that_is_likelier_everywhere_wins_nowhere_by_it():
    clear = np.eye(7)[LABELS] + DRAW.normal(size=(60, 7)) * 0.01
    biased = clear + np.array([50, 0, 0, 0, 0, 0, 0])
    for score in (clear, biased):
        assert np.mean(against_labels("m", score, names(LABELS), [None] * 60)["m_top1"]) == 1


def test_shares_of_people_count_where_they_are_there():
    score = np.eye(7)[LABELS]
    split = [tuple(np.roll([0.6, 0.4, 0, 0, 0, 0, 0], i)) for i in LABELS]
    hard = against_labels("m", score, names(LABELS), [None] * 60)
    soft = against_labels("m", score, names(LABELS), split)
    assert np.mean(soft["m_soft_nll"]) > np.mean(hard["m_soft_nll"]) + 0.5
    assert soft["m_top1"] == hard["m_top1"]


def test_without_labels_everything_is_undefined_and_counted_out():
    items = against_labels("m", DRAW.normal(size=(5, 7)), [None] * 5, [None] * 5)
    assert set(items) == {"m_top1", "m_informedness", "m_soft_nll", "m_temperature"}
    assert all(np.isnan(v).all() for v in items.values())
    assert len(items["m_top1"]) == 5


def test_an_undefined_row_leaves_the_others_as_they_are():
    score = np.eye(7)[LABELS] + DRAW.normal(size=(60, 7))
    some = score.copy()
    some[7] = math.nan
    whole = against_labels("m", np.delete(score, 7, 0), names(np.delete(LABELS, 7)), [None] * 59)
    part = against_labels("m", some, names(LABELS), [None] * 60)
    assert math.isnan(part["m_top1"][7])
    for key in ("m_top1", "m_informedness", "m_soft_nll"):
        assert np.delete(part[key], 7) == pytest.approx(whole[key])
