"""Do the model's foundation scores agree with what people said of the same vignettes?

In: log-scores s_if and vignettes. Both readouts are centred over the vignettes first, c_if = s_if − mean_i s_if, so
that a foundation whose answer is likelier everywhere wins nowhere by it; the guess is g_i = argmax_f c_if. Out, an
item a vignette, named after the readout:

    top1           [g_i = y_i]
    informedness   macro Youden's J: mean over labels y of P(g = y | label y) − P(g = y | another label); chance is 0.
                   Items are each vignette's part of it, scaled so that their mean is J
    soft_nll       −Σ_f h_if log softmax(β c_i)_f in nats, h people's shares (1 on the label where there are none)
    temperature    1/β, the one number fitted: β ≥ 0 minimises the mean soft_nll (convex); undefined at β = 0

Without labels all are NaN, so n is 0. J source: Youden 1950; its multi-class mean: Powers 2003.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int

from steer_heal_love.nouns import FOUNDATIONS, Items

LARGEST = 1e4
"""β past which a softmax is an argmax"""


def against_labels(
    name: str,
    score: Float[np.ndarray, "n f"],
    labels: list[str | None],
    shares: list[tuple[float, ...] | None],
) -> Items:
    """Agreement of `score` with people's labels over the rows where both are defined; NaN elsewhere."""
    own = np.array([FOUNDATIONS.index(f) if f else -1 for f in labels])
    known = np.isfinite(score).all(1) & (own >= 0)
    columns = {key: np.full(len(own), np.nan) for key in ("top1", "informedness", "soft_nll")}
    beta = 0.0
    if known.any():
        centred = score[known] - score[known].mean(0)
        guess, y = centred.argmax(1), own[known]
        one_hot = np.eye(len(FOUNDATIONS))
        people = np.array([h or one_hot[i] for h, i in zip(shares, own, strict=True)])[known]
        beta = inverse_temperature(centred, people)
        columns["top1"][known] = guess == y
        columns["informedness"][known] = informedness(guess, y)
        columns["soft_nll"][known] = -(people * log_softmax(beta * centred)).sum(1)
    items = {f"{name}_{key}": values.tolist() for key, values in columns.items()}
    return items | {f"{name}_temperature": [1 / beta if beta > 0 else math.nan]}


def informedness(guess: Int[np.ndarray, " n"], label: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Each item's part of the macro J over the labels that occur; NaN where there is one label only."""
    n, classes = len(label), np.unique(label)
    if len(classes) < 2:
        return np.full(n, np.nan)
    count = np.bincount(label, minlength=len(FOUNDATIONS))[guess]
    hit = 1 / np.maximum(count, 1)
    miss = np.where(count > 0, -1 / np.maximum(n - count, 1), 0.0)
    return np.where(guess == label, hit, miss) * n / len(classes)


def inverse_temperature(score: Float[np.ndarray, "n f"], shares: Float[np.ndarray, "n f"]) -> float:
    """β ≥ 0 of the least mean cross-entropy, where the expected score under the model is that under people."""
    wanted = (shares * score).sum()

    def excess(beta: float) -> float:
        return float((np.exp(log_softmax(beta * score)) * score).sum() - wanted)

    low, high = 0.0, LARGEST
    if excess(low) >= 0:
        return 0.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return high


def log_softmax(x: Float[np.ndarray, "n f"]) -> Float[np.ndarray, "n f"]:
    x = x - x.max(1, keepdims=True)
    return x - np.log(np.exp(x).sum(1, keepdims=True))
