"""A small classifier of text: was it written by the base when told to be the pos pole, or the neg?

In: texts of both poles on the same prompts. Out: for any text its calibrated log-odds of the pos pole, in nats.

Features: hashed counts of word 1–2-grams and of character 2–4-grams within words, each TF-IDF weighted and scaled to
length 1. Classifier: logistic regression at scikit-learn's own strength. Out-of-fold scores d_i come from folds that
never split a prompt; Platt's sigmoid, log-odds a·d + b, is fitted on them and read at the scores of the classifier that
is fitted on everything. With p_i and q_i the out-of-fold scores of the pos and the neg text on prompt i,

    AUC = mean_ij [p_i > q_j] (a tie counts half),   w_i = mean_j [p_i > q_j] + mean_j [p_j > q_i] − AUC

w_i is prompt i's part: its mean is the AUC, and its spread over prompts gives the AUC's error, the two texts of a
prompt being one draw. Where nothing is to be learned, a chance likeness of two prompts counts in the part of both, one
being the other's training text: the AUC's variance is then twice what that spread says, and is taken as such
(`CROSS_FITTED`). The fit is a function of the texts alone. Nothing here reads the model's own likelihoods.
Invariant: swapping the poles flips the sign of every log-odds.
Sources: Platt 1999 (the sigmoid); DeLong et al. 1988 and Obuchowski 1997 (the AUC's error, by cluster).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from steer_heal_love.ground.stats import CROSS_FITTED, proportion
from steer_heal_love.ground.text import words
from steer_heal_love.nouns import Score

if TYPE_CHECKING:  # scikit-learn takes seconds to import, and a run may ask for no readout
    from scipy import sparse
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline

FOLDS = 5
"""folds of prompts; as many as there are prompts where those are fewer"""
FEATURES = 2**14
"""buckets that n-grams are hashed into, for each kind"""
SUFFIX = re.compile(r"(?:ingly|ness|less|ing|ful|ity|ed|ly|er|es|s|e|y|th)$")


@dataclass(frozen=True)
class PoleText:
    """What the base wrote on a prompt when told to be a pole."""

    prompt: str
    pos: bool
    text: str


def stem(word: str) -> str:
    """The word without its endings, at least three letters of it: loving, loved, lovely and love are one."""
    while len(shorter := SUFFIX.sub("", word)) >= 3 and shorter != word:
        word = shorter
    return word


def without(text: str, stems: frozenset[str]) -> str:
    """The text without every word whose stem is masked. Left out, not replaced: a mark could be counted."""
    if not stems:
        return text
    return re.sub(r"\w+(?:['’]\w+)*", lambda m: "" if stem("".join(words(m[0])[:1])) in stems else m[0], text)


def counts(texts: Iterable[str]) -> sparse.csr_matrix:
    """[texts, 2·FEATURES] counts of hashed n-grams, words' first; hashing learns nothing, so it is done once."""
    from scipy import sparse
    from sklearn.feature_extraction.text import HashingVectorizer

    shown = list(texts)
    hashed = [
        HashingVectorizer(analyzer=kind, ngram_range=n, n_features=FEATURES, alternate_sign=False, norm=None)
        for kind, n in (("word", (1, 2)), ("char_wb", (2, 4)))
    ]
    return sparse.hstack([h.transform(shown) for h in hashed]).tocsr()


def classifier() -> Pipeline:
    """Counts to the pos pole's score, untrained."""
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    weighed = [
        (name, TfidfTransformer(sublinear_tf=True), slice(start, start + FEATURES))
        for name, start in (("words", 0), ("characters", FEATURES))
    ]
    return make_pipeline(
        ColumnTransformer(weighed),
        LogisticRegression(solver="liblinear", dual=True, max_iter=1000, random_state=0),
    )


def platt(score: Float[np.ndarray, " n"], pos: Bool[np.ndarray, " n"]) -> LogisticRegression:
    """The sigmoid from out-of-fold scores to the pole. Each side's target is short of certainty by one text, as Platt
    has it, so that scores which never err don't make it steep without end."""
    from sklearn.linear_model import LogisticRegression

    target = np.where(pos, (pos.sum() + 1) / (pos.sum() + 2), 1 / ((~pos).sum() + 2))
    both: Bool[np.ndarray, " m"] = np.repeat([True, False], len(score))
    weight = np.concatenate([target, 1 - target])
    return LogisticRegression(C=np.inf).fit(np.tile(score, 2)[:, None], both, sample_weight=weight)


def auc_parts(pos: Float[np.ndarray, " n"], neg: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """w_i of each prompt, from its pos text's score and its neg text's."""
    won = (pos[:, None] > neg) + 0.5 * (pos[:, None] == neg)
    return won.mean(1) + won.mean(0) - won.mean()


@dataclass(frozen=True)
class Readout:
    """A fitted classifier: `auc_items` are its w_i by prompt, `masked` the stems that it never saw."""

    model: Pipeline
    calibrated: LogisticRegression
    auc_items: list[float]
    masked: frozenset[str]

    @property
    def auc(self) -> Score:
        return proportion(self.auc_items, effect=CROSS_FITTED)

    @property
    def tells(self) -> bool:
        """Whether it surely tells the poles apart."""
        return self.auc.lo > 0.5

    def log_odds(self, texts: Iterable[str]) -> Float[np.ndarray, " n"]:
        """Nats in favour of the pos pole; NaN for a text without a word left."""
        shown = [without(t, self.masked) for t in texts]
        if not shown:
            return np.empty(0)
        score = self.model.decision_function(counts(shown))
        return np.where(
            [bool(words(t)) for t in shown], self.calibrated.decision_function(score[:, None]), np.nan
        )


@lru_cache(maxsize=8)
def fit(pole_texts: tuple[PoleText, ...], masked: frozenset[str] = frozenset()) -> Readout:
    """The readout of `pole_texts`, which has one text of each pole for every prompt, two prompts at least."""
    from sklearn.model_selection import GroupKFold, cross_val_predict

    number = {p: i for i, p in enumerate(dict.fromkeys(t.prompt for t in pole_texts))}
    if {(t.prompt, t.pos) for t in pole_texts} != {(p, pole) for p in number for pole in (True, False)}:
        raise ValueError("one text of each pole for every prompt")
    x, pos = counts(without(t.text, masked) for t in pole_texts), np.array([t.pos for t in pole_texts])
    groups = np.array([number[t.prompt] for t in pole_texts])
    folds = GroupKFold(min(FOLDS, len(number)))
    held_out = cross_val_predict(classifier(), x, pos, groups=groups, cv=folds, method="decision_function")
    by_prompt = {pole: np.empty(len(number)) for pole in (True, False)}
    for pole, scores in by_prompt.items():
        scores[groups[pos == pole]] = held_out[pos == pole]
    parts = auc_parts(by_prompt[True], by_prompt[False])
    return Readout(classifier().fit(x, pos), platt(held_out, pos), parts.tolist(), masked)
