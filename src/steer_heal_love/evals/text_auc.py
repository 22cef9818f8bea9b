"""Can the model's own text be told from the base's? A two-sample test by a classifier.

Own and base samples on the same neutral prompts; a logistic regression on hashed n-grams of words and characters is
trained on the texts of all prompts but a fifth, and ranks the texts of that fifth; and so on in turn. An item is a prompt:

    text_auc_p = share of pairs (own text, base text) of prompt p in which the own text is ranked higher, ties a half

0.5: can't be told apart; 1: always. A prompt is wholly in training or wholly out. What a topic does to both texts
cancels, since pairs share their prompt. At the base stage, the base's even draws are told from its odd ones: about 0.5.
Where nothing is to be learned the items resemble each other by chance (`ground.stats.widened`), which widens the interval.
Reads the samples of the instrument `samples`. Source: classifier two-sample tests, arXiv 1610.06545.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from steer_heal_love.evals import Subject, drawn_by, instrument
from steer_heal_love.ground.declared import Declared, Panel
from steer_heal_love.nouns import Items, Sample

if TYPE_CHECKING:  # takes seconds to import, and a run may not ask for this instrument
    from scipy.sparse import csr_matrix

FOLDS = 5
HASHES = 2**14
"""columns for words, and as many for characters"""
Texts = dict[str, list[str]]
"""samples by prompt"""


@lru_cache(maxsize=2)
def features(texts: tuple[str, ...]) -> csr_matrix:
    """[n, 2·HASHES] n-grams of one and two words, and of two to four characters inside words. The base's texts are every
    stage's other side, so they are remembered."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import HashingVectorizer

    kinds: list[dict[str, Any]] = [
        {"analyzer": "word", "ngram_range": (1, 2), "token_pattern": r"\w+|[^\w\s]"},
        {"analyzer": "char_wb", "ngram_range": (2, 4)},
    ]
    hashed = [HashingVectorizer(n_features=HASHES, alternate_sign=False, **k).transform(texts) for k in kinds]
    return hstack(hashed).tocsr()


def ranked_higher(own: Float[np.ndarray, " a"], base: Float[np.ndarray, " b"]) -> float:
    """Share of pairs in which the first is higher, ties a half; NaN without pairs."""
    gaps = np.subtract.outer(own, base)
    return float(((gaps > 0) + 0.5 * (gaps == 0)).mean()) if gaps.size else math.nan


def auc_by_prompt(own: Texts, base: Texts) -> list[float]:
    """The items, in the order of `own`'s prompts that both have; none from fewer than two prompts."""
    from scipy.sparse import vstack
    from sklearn.linear_model import LogisticRegression

    prompts = [p for p in own if p in base]
    if len(prompts) < 2:
        return []
    sides = [[(i, text) for i, p in enumerate(prompts) for text in side[p]] for side in (base, own)]
    group = np.array([i for side in sides for i, _ in side])
    label = np.array([k for k, side in enumerate(sides) for _ in side])
    x = vstack([features(tuple(text for _, text in side)) for side in sides]).tocsr()
    order = np.lexsort((1 - label, group))
    group, label, x = group[order], label[order], x[order]
    fold, score = group % min(FOLDS, len(prompts)), np.zeros(len(group))
    for k in np.unique(fold):
        fitted = LogisticRegression(C=10.0, class_weight="balanced", solver="liblinear").fit(
            x[fold != k], label[fold != k]
        )
        score[fold == k] = fitted.decision_function(x[fold == k])
    at = lambda i, kind: score[(group == i) & (label == kind)]
    return [ranked_higher(at(i, 1), at(i, 0)) for i in range(len(prompts))]


def by_prompt(samples: list[Sample], leave_out: set[str]) -> Texts:
    out: Texts = {}
    for m in samples:
        if m["prompt"] not in leave_out:
            out.setdefault(m["prompt"], []).append(m["text"])
    return out


def told_apart(s: Subject, _measured: Any) -> Items:
    questions = {p.question for p in s.probes}
    own, base = by_prompt(s.drawn, questions), by_prompt(s.base_drawn, questions)
    if not s.base_drawn:
        drawn = own
        own, base = ({p: t[k::2] for p, t in drawn.items() if len(t) > 1} for k in (0, 1))
    return {"text_auc": auc_by_prompt(own, base)}


SCORES = (
    Declared(
        "text_auc",
        48,
        interval="cross-fitted",
        column=True,
        means="How often a classifier ranks a text of the model above one of the base for the same neutral prompt. 0.5: the texts can't be told apart; 1: always.",
        panel=Panel("Its text told from base's", "AUC"),
    ),
)


@instrument("text_auc", outside=told_apart, ready=drawn_by("text_auc"), scores=SCORES)
def text_auc(_subject: Subject) -> None:
    """Nothing is measured inside: the texts are read afterwards."""
