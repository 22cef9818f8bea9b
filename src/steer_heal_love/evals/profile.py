"""What a shift of the moral-foundation profile is made of: vignettes, sentences, and one constant a foundation.

In: items of a stage and of its base. d_if is the shift of vignette i's centred log-ratio for foundation f.

    mfv.f               mean_i d_if. Where each foundation has P > 1 answer sentences, they are a draw too: with m_p the
                        mean shift by sentence p, the half-width is √(vignettes² + (t_{P−1}·sd(m_p)/√P)²)
    mfv_constant_share  Σ_f d̄_f² / mean_i Σ_f d_if²: the share of all squared shift that is the same after every
                        vignette. Near 1, the answers became likelier or not whatever they are said of

d̄_f² is read less its own error, s_f²/n, so that noise is no constant; each vignette's part of it is its influence
2·d̄_f·d_if − d̄_f² − s_f²/n, whose mean it is. The ratio's interval is Fieller's (`ground.stats.ratio`).
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from steer_heal_love.ground.stats import LEVEL, ratio, subtract, t_quantile
from steer_heal_love.nouns import FOUNDATIONS, Items, Score, Scores

PROFILE, SENTENCE, SHARE = "mfv.", "mfv_sentence.", "mfv_constant_share"


def with_sentences(name: str, shift: Score, items: Items, base: Items) -> Score:
    """The shift of `mfv.<Foundation>` with its sentences' spread in the interval, where it was measured."""
    source = name.replace(PROFILE, SENTENCE, 1) if name.startswith(PROFILE) else ""
    if source not in items or source not in base:
        return shift
    moved = np.array(subtract(items[source], base[source]))
    error = float(moved.std(ddof=1)) / math.sqrt(len(moved))
    spread = t_quantile((1 + LEVEL) / 2, len(moved) - 1) * error
    return Score(
        shift.mean,
        shift.mean - math.hypot(shift.mean - shift.lo, spread),
        shift.mean + math.hypot(shift.hi - shift.mean, spread),
        shift.n,
    )


def constant_share(items: Items, base: Items, *, resamples: int, seed: int = 0) -> Scores:
    """`mfv_constant_share`, undefined for the base itself; nothing where there is no profile."""
    names = [f"{PROFILE}{f}" for f in FOUNDATIONS]
    if not all(n in items and n in base for n in names):
        return {}
    d = np.array([subtract(items[n], base[n]) for n in names]).T
    d = d[np.isfinite(d).all(1)]
    if len(d) < 2 or not d.any():
        return {SHARE: Score.undefined()}
    part, whole = constant_parts(d), (d**2).sum(1)
    return {SHARE: ratio(part.tolist(), whole.tolist(), resamples=resamples, seed=seed)}


def constant_parts(d: Float[np.ndarray, "n f"]) -> Float[np.ndarray, " n"]:
    """Each vignette's part of Σ_f d̄_f², less what noise puts there."""
    mean, error = d.mean(0), d.var(0, ddof=1) / len(d)
    return (2 * mean * d - mean**2 - error).sum(1)
