"""How well numbers tell broken texts from coherent ones: AUC with intervals, held-out combinations, precision and recall.

Texts of one prompt are alike, so prompts are resampled and held out, never single texts. The combination has a ridge logistic
regression for each kind of breakage, since what soup is short of a loop has too much of, and calls a text broken by
−log Π (1 − p_kind). Everything that is fitted, means and deviations included, comes from the other folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steer_heal_love.ground.stats import t_quantile

RIDGE = 3.0
FOLDS = 10


@dataclass(frozen=True)
class Labelled:
    """What is to be told apart: `kinds` of breakage or "coherent", by text, and the prompt that a text answers."""

    kinds: np.ndarray
    prompts: np.ndarray

    @property
    def broken(self) -> np.ndarray:
        return self.kinds != "coherent"


def kappa(pairs: list[tuple[object, object]]) -> float:
    """Cohen's kappa of two readers."""
    firsts, seconds = zip(*pairs, strict=True)
    agreed = sum(a == b for a, b in pairs) / len(pairs)
    chance = sum(firsts.count(x) * seconds.count(x) for x in set(firsts)) / len(pairs) ** 2
    return (agreed - chance) / (1 - chance)


def area(values: np.ndarray, broken: np.ndarray) -> float:
    """Chance that a broken text's value is above a coherent one's, ties half; NaN where a side is missing."""
    high, low = values[broken], values[~broken]
    if not len(high) or not len(low):
        return float("nan")
    return float(((high[:, None] > low).mean() + (high[:, None] >= low).mean()) / 2)


def interval(
    values: np.ndarray, texts: Labelled, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95% interval of the area: t with prompts − 1 degrees of freedom times its standard deviation over prompts drawn
    with replacement, both by log-odds, which know that an area ends at 1. Percentiles of the draws cover less."""
    names, at = np.unique(texts.prompts, return_inverse=True)
    even = np.full(len(names), 1 / len(names))
    times = np.random.default_rng(seed).multinomial(len(names), even, resamples)[:, at]
    high, low = values[texts.broken][:, None], values[~texts.broken]
    won = np.heaviside(high - low, 0.5)
    of_broken, of_fine = times[:, texts.broken], times[:, ~texts.broken]
    pairs = of_broken.sum(1) * of_fine.sum(1)
    areas = ((of_broken @ won) * of_fine).sum(1)[pairs > 0] / pairs[pairs > 0]
    half = t_quantile(0.975, len(names) - 1) * odds(areas, len(names)).std(ddof=1)
    found = area(values, texts.broken)
    middle = float(odds(np.array(found), len(names)))
    lower, upper = (1 / (1 + np.exp(-(middle + side * half))) for side in (-1, 1))
    return min(float(lower), found), max(float(upper), found)


def odds(areas: np.ndarray, n: int) -> np.ndarray:
    """Log-odds, at least half a prompt of n from either end."""
    inside = np.clip(areas, 0.5 / n, 1 - 0.5 / n)
    return np.log(inside / (1 - inside))


def precision_recall(falls: np.ndarray, broken: np.ndarray) -> tuple[float, float]:
    """Share of what falls that is broken, and share of the broken that falls; NaN of nothing."""
    hit = float((falls & broken).sum())
    return hit / falls.sum() if falls.any() else float("nan"), hit / broken.sum()


def lost(values: np.ndarray, broken: np.ndarray, recall: float) -> float:
    """Share of the coherent texts at or above the highest value that still catches `recall` of the broken ones."""
    high = np.sort(values[broken])[::-1]
    cut = high[int(np.ceil(recall * len(high) - 1e-9)) - 1]
    return float((values[~broken] >= cut).mean())


def lost_more(
    values: np.ndarray,
    others: np.ndarray,
    texts: Labelled,
    recall: float,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """95% interval, over prompts drawn with replacement, of what `values` lose beyond `others` at the same recall."""
    names, at = np.unique(texts.prompts, return_inverse=True)
    rng, found = np.random.default_rng(seed), []
    for _ in range(resamples):
        drawn = np.repeat(
            np.arange(len(at)), np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))[at]
        )
        broken = texts.broken[drawn]
        found.append(lost(values[drawn], broken, recall) - lost(others[drawn], broken, recall))
    lower, upper = np.quantile(found, (0.025, 0.975))
    return float(lower), float(upper)


def union(values: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The highest quantile of the base's own samples at which any of the columns still lets a text fall."""
    even = np.linspace(0, 1, len(own))
    return np.stack([np.interp(v, np.sort(o), even) for v, o in zip(values.T, own.T, strict=True)]).max(0)


def logistic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weights of a ridge logistic regression by Newton's method, the free constant last."""
    x = np.c_[x, np.ones(len(x))]
    ridge, w = np.diag([RIDGE] * (x.shape[1] - 1) + [1e-6]), np.zeros(x.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-x @ w))
        hessian = (x * (p * (1 - p))[:, None]).T @ x + ridge
        w -= np.linalg.solve(hessian, x.T @ (p - y) + ridge @ w)
    return w


def combined(
    x: np.ndarray, texts: Labelled, seen: np.ndarray, kinds: Sequence[str], own: np.ndarray | None = None
) -> np.ndarray:
    """−log of the chance that a text is of none of the kinds, for every text, fitted on those `seen`.

    Inputs are standardised by the coherent ones among them, or by a run's `own` samples.
    """
    fine = x[seen & ~texts.broken] if own is None else own
    x = np.clip((x - fine.mean(0)) / (fine.std(0) + 1e-6), -6, 10)
    out = np.zeros(len(x))
    for kind in kinds:
        is_kind = texts.broken if kind == "broken" else texts.kinds == kind
        among = seen & (is_kind | ~texts.broken)
        if is_kind[among].any():
            out += np.log1p(np.exp(np.c_[x, np.ones(len(x))] @ logistic(x[among], is_kind[among])))
    return out


def folds(texts: Labelled, seed: int) -> np.ndarray:
    """A fold for each text, the same for all texts of a prompt."""
    names, at = np.unique(texts.prompts, return_inverse=True)
    return (np.random.default_rng(seed).permutation(len(names)) % FOLDS)[at]


def held_out(
    x: np.ndarray,
    texts: Labelled,
    kinds: Sequence[str],
    *,
    seed: int,
    recall: float,
    own: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Each text's value by what other prompts' texts say, and whether it falls at the threshold that keeps
    `recall` of *their* broken ones out."""
    fold = folds(texts, seed)
    value, falls = np.zeros(len(x)), np.zeros(len(x), bool)
    for k in range(FOLDS):
        seen = fold != k
        out = combined(x, texts, seen, kinds, own)
        value[~seen] = out[~seen]
        falls[~seen] = out[~seen] >= np.quantile(out[seen & texts.broken], 1 - recall)
    return value, falls
