"""The text readout: its AUC and interval are right where the truth is known, masking hides, log-odds are calibrated."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from steer_heal_love.evals import readout
from steer_heal_love.evals.readout import PoleText, auc_parts, fit, stem, without
from steer_heal_love.ground.stats import CROSS_FITTED, proportion

SIZE = 120
WORDS = ["".join(p) for p in np.random.default_rng(7).choice(list("bcdfglmnprtv"), (SIZE, 6))]
TILT = np.random.default_rng(1).normal(size=SIZE)


def written(seed: int, delta: float, n: int = 24, length: int = 30) -> tuple[PoleText, ...]:
    """A text of each pole on n prompts: words drawn from the prompt's own topic, tilted by ±delta/2 toward the pole."""
    g, out = np.random.default_rng(seed), []
    for i in range(n):
        topic = 0.7 / SIZE + 0.3 * g.dirichlet(np.full(SIZE, 0.1))
        for pos in (True, False):
            p = topic * np.exp((0.5 if pos else -0.5) * delta * TILT)
            out.append(PoleText(f"p{i}", pos, " ".join(g.choice(WORDS, length, p=p / p.sum()))))
    return tuple(out)


def scores(g: np.random.Generator, n: int, gap: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores of n pairs whose two texts share half of their variance; AUC between pairs is Φ(gap/√2)."""
    shared = g.normal(size=n)
    return tuple(np.sqrt(0.5) * (shared + g.normal(size=n)) + side * gap / 2 for side in (1, -1))


@pytest.mark.parametrize("n", [16, 32, 64])
@pytest.mark.parametrize("auc", [0.5, 0.75, 0.95])
def test_the_aucs_interval_covers_with_the_two_texts_of_a_prompt_as_one_draw(n, auc):
    g, gap = np.random.default_rng(n), NormalDist().inv_cdf(auc) * np.sqrt(2)
    within = NormalDist().cdf(gap)  # of a prompt's own two texts, whose shared part cancels
    truth = auc + (within - auc) / n
    made = [proportion(auc_parts(*scores(g, n, gap)).tolist()) for _ in range(600)]
    assert np.mean([s.lo <= truth <= s.hi for s in made]) >= 0.92
    assert np.mean([s.mean for s in made]) == pytest.approx(truth, abs=0.02)


def test_the_parts_mean_is_the_share_of_pairs_and_ties_count_half():
    pos, neg = np.array([2.0, 1.0, 0.0]), np.array([1.0, 0.0, -1.0])
    wins = [(p > q) + 0.5 * (p == q) for p in pos for q in neg]
    assert auc_parts(pos, neg).mean() == pytest.approx(np.mean(wins))
    assert auc_parts(pos, neg).mean() + auc_parts(neg, pos).mean() == pytest.approx(1)


def test_a_perfect_auc_still_has_an_interval_and_nothing_is_undefined():
    s = proportion([1.0] * 32, effect=CROSS_FITTED)
    assert s.mean == s.hi == 1 and 0.7 < s.lo < 0.9
    assert proportion([]).n == 0


def test_where_there_is_nothing_to_tell_it_says_so_as_often_as_promised(monkeypatch):
    """Cross-fitting doubles the variance there; with it, half is inside the interval as often as 95% says."""
    monkeypatch.setattr(readout, "FEATURES", 2**9)
    made = [fit.__wrapped__(written(seed, 0.0, n=16, length=12)) for seed in range(40)]
    assert np.mean([r.auc.lo <= 0.5 <= r.auc.hi for r in made]) >= 0.9
    assert np.mean([r.tells for r in made]) <= 0.1
    naive = np.mean([np.std(r.auc_items, ddof=1) / np.sqrt(16) for r in made])
    assert np.std([r.auc.mean for r in made]) > 1.15 * naive


def test_it_tells_poles_that_differ_and_its_log_odds_are_calibrated():
    told = fit(written(0, 1.0))
    new = [t for seed in range(100, 110) for t in written(seed, 1.0)]
    odds = told.log_odds([t.text for t in new])
    labels = np.array([t.pos for t in new])
    assert told.tells and odds[labels].mean() > 1 > -1 > odds[~labels].mean()
    p = 1 / (1 + np.exp(-odds))
    for low, high in ((0, 0.35), (0.35, 0.65), (0.65, 1)):
        inside = (p >= low) & (p < high)
        assert inside.sum() > 20
        assert labels[inside].mean() == pytest.approx(p[inside].mean(), abs=0.2)


def test_swapping_the_poles_flips_the_sign():
    told = written(3, 1.0)
    swapped = tuple(PoleText(t.prompt, not t.pos, t.text) for t in told)
    texts = [t.text for t in written(4, 1.0)]
    a, b = fit(told).log_odds(texts), fit(swapped).log_odds(texts)
    assert a == pytest.approx(-b, abs=1e-3) and np.abs(a).max() > 1


def test_it_is_a_function_of_the_texts():
    told, texts = written(5, 0.8), [t.text for t in written(6, 0.8)]
    again = fit.__wrapped__(told)
    assert again.auc_items == fit(told).auc_items
    assert again.log_odds(texts).tolist() == fit(told).log_odds(texts).tolist()


def test_what_only_masked_words_tell_is_not_told():
    """Both poles write the same text; one of them adds its own words to it."""
    plain = written(8, 0.0, n=24)
    parrots = tuple(
        PoleText(t.prompt, t.pos, plain[i - i % 2].text + (" loving warmth" if t.pos else " cold machines"))
        for i, t in enumerate(plain)
    )
    masked = frozenset(map(stem, ("love", "warm", "coldness", "machine")))
    assert fit(parrots).tells
    hidden = fit(parrots, masked)
    assert not hidden.tells and hidden.auc.mean == pytest.approx(0.5)
    a, b = hidden.log_odds(["so it goes", "so loving it goes, warmly, machine"])
    assert a == pytest.approx(b)


def test_a_text_of_masked_words_alone_or_none_is_undefined():
    told = fit(written(9, 1.0), frozenset({stem("love")}))
    assert np.isnan(told.log_odds(["", "Love, lovely!", "..."])).all()
    assert told.log_odds([]).shape == (0,)


@pytest.mark.parametrize(
    "family",
    [
        ("love", "loving", "loved", "lovely", "loves"),
        ("warm", "warmth", "warmly", "warmer"),
        ("cold", "coldness"),
    ],
)
def test_the_forms_of_a_word_are_masked_together(family):
    assert len({stem(w) for w in family}) == 1
    assert without("a " + " b ".join(w.title() for w in family), frozenset({stem(family[0])})).split() == [
        "a",
        *["b"] * (len(family) - 1),
    ]


def test_a_prompt_without_both_poles_is_no_training_text():
    with pytest.raises(ValueError, match="each pole"):
        fit(written(0, 1.0)[:-1])
