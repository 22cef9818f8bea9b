"""Walk the dose to the largest one whose completions survive.

In: `attempt(doses) → completions judged`, and where to look. Out: the dose, and every completion made.

Bisection on log dose, several points a pass because one batch holds many doses: a pass samples k doses
between the largest known to survive and the smallest known to fail. Survival is assumed to fall with dose;
a dose counts as surviving only if every smaller one tried does.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from steer_heal_love.nouns import Completion


@dataclass(frozen=True)
class Walk:
    """`dose` None: nothing survived down to the floor. `survival`: coherent share by dose tried."""

    dose: float | None
    survival: dict[float, float]
    completions: list[Completion]


def walk(
    attempt: Callable[[list[float]], list[Completion]],
    *,
    start: float,
    span: float,
    doses: int,
    survival: float,
    passes: int,
    floor: float,
) -> Walk:
    """The largest dose at which the coherent share is at least `survival`; never below `floor`.

    Passes continue past `passes` only while nothing has survived, each one `span`² lower.
    """
    made: list[Completion] = []
    low, high = max(start / span, floor), start * span
    done = 0
    while True:
        made += attempt(between(low, high, doses, ends=done == 0))
        done += 1
        rates = {dose: rate(made, dose) for dose in sorted({c.dose for c in made})}
        good, bad = bracket(rates, survival)
        if good is None and low <= floor:
            return Walk(None, rates, made)
        if good is None:
            low, high, done = max(low / span**2, floor), low / 1.01, 0
        elif bad is None or done >= passes:
            return Walk(good, rates, made)
        else:
            low, high = good, bad


def between(low: float, high: float, n: int, *, ends: bool) -> list[float]:
    """`n` doses evenly spaced in log between `low` and `high`, with or without the ends."""
    if low >= high:
        return [low]
    steps = [i / max(n - 1, 1) for i in range(n)] if ends else [(i + 1) / (n + 1) for i in range(n)]
    return [round(low * (high / low) ** t, 4) for t in steps]


def rate(completions: list[Completion], dose: float) -> float:
    here = [c for c in completions if c.dose == dose]
    return sum(c.coherent for c in here) / len(here) if here else math.nan


def bracket(rates: dict[float, float], survival: float) -> tuple[float | None, float | None]:
    """Largest dose below which all survive, and the smallest that fails."""
    good = None
    for dose, share in rates.items():
        if share < survival:
            return good, dose
        good = dose
    return good, None


def tally(completions: list[Completion], survival: float) -> dict[str, Any]:
    """What a walk found, from its completions alone: dose, coherent share by dose, counts, reasons."""
    rates = {dose: rate(completions, dose) for dose in sorted({c.dose for c in completions})}
    return {
        "dose": bracket(rates, survival)[0], "survival": rates, "made": len(completions),
        "coherent": sum(c.coherent for c in completions), "kept": sum(c.kept for c in completions),
        "used": sum(c.used for c in completions),
        "reasons": dict(Counter(reason for c in completions for reason in c.reasons).most_common()),
    }  # fmt: skip
