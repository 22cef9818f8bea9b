"""Walk the dose to the largest one whose completions survive.

In: `attempt(doses) → completions judged`, and where to look. Out: the dose, and every completion made.

The coherent share falls with the dose, so it is fitted by the closest falling curve (isotonic regression,
pool adjacent violators) over log dose; the dose sought is where that curve crosses the target. The first
pass brackets the crossing with several doses at once (one batch holds them all), moving its window down or
up until it does; later passes sample just below the crossing, so that nearly all text comes from there.
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
    ceiling: float,
    least: int = 0,
) -> Walk:
    """The largest dose at which the fitted coherent share is at least `survival`, within floor and ceiling.

    Where fewer than `least` completions would be kept at or below it, up to `passes` more passes are sampled there.
    """
    made: list[Completion] = []
    low, high = max(start / span, floor), max(min(start * span, ceiling), floor)
    while True:
        made += attempt(spread(low, high, doses))
        found = crossing(rates(made), survival)
        if found is None and low > floor:
            low, high = max(low / span**2, floor), low / span**0.5
        elif found is not None and found >= max(c.dose for c in made) and high < ceiling:
            low, high = high * span**0.5, min(high * span**2, ceiling)
        else:
            break
    for number in range(1, 2 * passes):
        if found is None or (number >= passes and kept(made, found) >= least):
            break
        made += attempt(spread(max(0.6 * found, floor), found, doses))
        found = crossing(rates(made), survival)
    return Walk(found, {dose: share for dose, (share, _) in rates(made).items()}, made)


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


def falling(shares: list[float], weights: list[int]) -> list[float]:
    """The non-increasing sequence closest to `shares` in weighted squares (pool adjacent violators)."""
    blocks: list[tuple[float, int, int]] = []
    for share, weight in zip(shares, weights, strict=True):
        blocks.append((share, weight, 1))
        while len(blocks) > 1 and blocks[-2][0] < blocks[-1][0]:
            (a, wa, na), (b, wb, nb) = blocks[-2:]
            blocks[-2:] = [((a * wa + b * wb) / (wa + wb), wa + wb, na + nb)]
    return [share for share, _, n in blocks for _ in range(n)]


def crossing(found: dict[float, tuple[float, int]], target: float) -> float | None:
    """Where the fitted curve falls through `target`, interpolated in log dose; None if it starts below."""
    doses = list(found)
    fit = falling([share for share, _ in found.values()], [n for _, n in found.values()])
    if not fit or fit[0] < target:
        return None
    last = max(i for i, share in enumerate(fit) if share >= target)
    if last + 1 == len(fit):
        return doses[last]
    t = (fit[last] - target) / (fit[last] - fit[last + 1])
    return round(math.exp((1 - t) * math.log(doses[last]) + t * math.log(doses[last + 1])), 4)


def tally(completions: list[Completion], survival: float) -> dict[str, Any]:
    """What a walk found, from its completions alone: dose, coherent share by dose, counts, reasons."""
    found = rates(completions)
    return {
        "dose": crossing(found, survival), "survival": {dose: share for dose, (share, _) in found.items()},
        "made": len(completions), "coherent": sum(c.coherent for c in completions),
        "kept": sum(c.kept for c in completions), "used": sum(c.used for c in completions),
        "reasons": dict(Counter(reason for c in completions for reason in c.reasons).most_common()),
    }  # fmt: skip
