"""Walk the dose to the one at which steering starts to break the text.

In: `attempt(doses) → completions judged`, and where to look. Out: the dose, and every completion made. The coherent
share is fitted by a Hill curve, the usual one for a response to a dose,

    share(d) = plateau / (1 + (d / half_dose)^steepness),

to everything sampled so far, the base's own share counting as a dozen texts at dose 0. The dose chosen leaves `survival`
of the plateau: the geometric mean over all curves, weighted by their likelihood. Curves through all doses wander far
less than the point where twelve texts happen to cross a line, and their mean less than the likeliest of them (decision
17); and a student whose plateau has fallen is still asked what steering costs *it*. The first pass
brackets that dose with several at once (one batch holds them all); later passes sample just below it, so that nearly
all text comes from there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from steer_heal_love.config import WalkConfig
from steer_heal_love.nouns import Completion, Response

PRIOR = 12
"""texts that the base's coherent share counts for at dose 0"""
STEEPNESS = {2: 0.2, 4: 0.6, 8: 0.2}
"""steepnesses tried, and how likely each is before anything was seen"""


@dataclass(frozen=True)
class Walk:
    """`dose` None: even at the floor steering breaks most of the text. `survival`: coherent share by dose tried."""

    dose: float | None
    survival: dict[float, float]
    completions: list[Completion]


def walk(
    attempt: Callable[[list[float]], list[Completion]],
    settings: WalkConfig,
    *,
    base: float,
    start: float | None = None,
    least: int = 0,
) -> Walk:
    """The dose, and what was sampled on the way. `base`: coherent share of the base's own samples.

    Where fewer than `least` completions would be kept at or below it, up to `passes` more passes are sampled there.
    """
    s, made = settings, []
    around = start or s.start
    low, high = max(around / s.span, s.floor), max(min(around * s.span, s.ceiling), s.floor)
    while True:
        made += attempt(spread(low, high, s.doses))
        aim = dose_leaving(made, base, s.survival)
        tried = [c.dose for c in made]
        if aim < min(tried) / s.span and low > s.floor:
            low, high = max(low / s.span**2, s.floor), low / s.span**0.5
        elif aim > max(tried) * s.span and high < s.ceiling:
            low, high = high * s.span**0.5, min(high * s.span**2, s.ceiling)
        else:
            break
    for number in range(1, 2 * s.passes):
        dose = choose_dose(made, s, base)
        if dose is None or (number >= s.passes and kept(made, dose) >= least):
            break
        made += attempt(spread(max(0.6 * dose, s.floor), dose, s.doses))
    return Walk(choose_dose(made, s, base), {dose: share for dose, (share, _) in rates(made).items()}, made)


def at(
    attempt: Callable[[list[float]], list[Completion]], dose: float, settings: WalkConfig, *, least: int = 0
) -> Walk:
    """As much text at one given dose as a walk samples, and up to `passes` more passes where fewer than `least` are kept."""
    made: list[Completion] = []
    for number in range(2 * settings.passes):
        if number >= settings.passes and kept(made, dose) >= least:
            break
        made += attempt([dose] * settings.doses)
    return Walk(dose, {d: share for d, (share, _) in rates(made).items()}, made)


def choose_dose(completions: list[Completion], settings: WalkConfig, base: float) -> float | None:
    """The dose chosen, inside floor and ceiling; None where even the floor halves the coherent share. A dose that was
    given is the one that everything was sampled at."""
    if not completions:
        return None
    if settings.kind != "survival":
        return max(c.dose for c in completions)
    if respond(completions, base).half_dose < settings.floor:
        return None
    dose = dose_leaving(completions, base, settings.survival)
    return round(min(max(dose, settings.floor), settings.ceiling), 4)


def respond(completions: list[Completion], base: float) -> Response:
    """The likeliest Hill curve."""
    (plateau, half, steepness), fit = fits(completions, base)
    i, j, k = np.unravel_index(fit.argmax(), fit.shape)
    return Response(float(plateau[i]), float(half[j]), float(steepness[k]))


def dose_leaving(completions: list[Completion], base: float, survival: float) -> float:
    """The dose that leaves `survival` of the plateau: its geometric mean over all curves, weighted by likelihood."""
    (_, half, steepness), fit = fits(completions, base)
    weight = np.exp(fit - fit.max()).sum(0)
    doses = np.log(half)[:, None] + np.log(1 / survival - 1) / steepness
    return float(np.exp((weight * doses).sum() / weight.sum()))


def fits(
    completions: list[Completion], base: float
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """Log-likelihood of every curve on a grid of plateaus, half-doses and steepnesses: plateaus by hundredths,
    half-doses by 2% up to 8 times beyond what was tried."""
    found = rates(completions)
    doses = np.array(list(found))
    shares, made = np.array(list(found.values())).T
    halves = np.geomspace(
        doses.min() / 8, doses.max() * 8, int(np.log(64 * doses.max() / doses.min()) / 0.02)
    )
    axes = np.linspace(0.01, 0.99, 99), halves, np.array(list(STEEPNESS), float)
    plateau, half, steepness = np.ix_(*axes)
    share = plateau[..., None] / (1 + (doses / half[..., None]) ** steepness[..., None])
    fit = (made * (shares * np.log(share) + (1 - shares) * np.log1p(-share))).sum(-1)
    fit += PRIOR * (base * np.log(plateau) + (1 - base) * np.log1p(-plateau))
    return axes, fit + np.log(list(STEEPNESS.values()))


def kept(completions: list[Completion], dose: float) -> int:
    """How many texts survive at or below a dose."""
    return len({c.text for c in completions if c.kept and c.dose <= dose})


def spread(low: float, high: float, n: int) -> list[float]:
    """`n` doses from `low` to `high`, evenly in log."""
    if low >= high or n == 1:
        return [max(low, high)]
    return [max(low, float(f"{low * (high / low) ** (i / (n - 1)):.4g}")) for i in range(n)]


def rates(completions: list[Completion]) -> dict[float, tuple[float, int]]:
    """Coherent share and count by dose, in rising order of dose."""
    made = Counter(c.dose for c in completions)
    good = Counter(c.dose for c in completions if c.coherent)
    return {dose: (good[dose] / made[dose], made[dose]) for dose in sorted(made)}


class Tally(TypedDict):
    """The part of a `WalkRecord` that is counted from the completions."""

    dose: float | None
    survival: dict[float, float]
    response: Response | None
    made: int
    coherent: int
    kept: int
    used: int
    reasons: dict[str, int]


def tally(completions: list[Completion], settings: WalkConfig, base: float) -> Tally:
    """What a walk found, from its completions alone: dose, coherent share by dose and its curve, counts, reasons."""
    return {
        "dose": choose_dose(completions, settings, base),
        "survival": {dose: share for dose, (share, _) in rates(completions).items()},
        "response": respond(completions, base),
        "made": len(completions),
        "coherent": sum(c.coherent for c in completions),
        "kept": sum(c.kept for c in completions),
        "used": sum(c.used for c in completions),
        "reasons": dict(Counter(reason for c in completions for reason in c.reasons).most_common()),
    }
