"""The completions on both sides of the filter's cut: what a reader needs in order to trust it.

In: a round's judged completions and the bounds. Out: the kept ones that nearly fell, the dropped ones that
nearly stayed. A completion's margin is that of its worst calibrated check, in standard deviations of it:

    margin = max_k side_k · (value_k − bound_k) / sd_k        (≤ 0 stays, > 0 falls)
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from steer_heal_love.nouns import Completion


@dataclass(frozen=True)
class Border:
    """A completion near the cut: its worst calibrated check, that check's value and bound, every reason."""

    prompt: str
    text: str
    dose: float
    check: str
    value: float
    bound: float
    reasons: list[str]
    margin: float


def borderline(
    completions: list[Completion], bounds: dict[str, float], n: int = 4
) -> tuple[list[Border], list[Border]]:
    """The `n` kept and the `n` dropped completions nearest to the cut, nearest first."""
    gauges = {k: g for k, b in bounds.items() if (g := gauge(completions, k, b))}
    found = [worst(c, gauges) for c in completions if gauges]
    kept = [b for c, b in zip(completions, found, strict=False) if b and c.kept]
    dropped = [b for c, b in zip(completions, found, strict=False) if b and b.margin > 0 and not c.kept]
    return (
        sorted(kept, key=lambda b: -b.margin)[:n],
        sorted(dropped, key=lambda b: b.margin)[:n],
    )


def gauge(completions: list[Completion], name: str, bound: float) -> tuple[float, float, float] | None:
    """A check's bound, the side that falls (+1 above, −1 below) and its spread.

    None for a fixed limit (a whole number) and for a check without spread: nothing is near those.
    """
    if not math.isfinite(bound) or bound == int(bound):
        return None
    values = [v for c in completions if math.isfinite(v := c.checks.get(name, math.nan))]
    spread = statistics.pstdev(values) if values else 0.0
    if spread == 0:
        return None
    fell = [v for c in completions if name in c.reasons and math.isfinite(v := c.checks[name])]
    above = fell[0] > bound if fell else max(values) <= bound
    return bound, 1.0 if above else -1.0, spread


def worst(c: Completion, gauges: dict[str, tuple[float, float, float]]) -> Border | None:
    margins = {
        name: side * (value - bound) / spread
        for name, (bound, side, spread) in gauges.items()
        if math.isfinite(value := c.checks.get(name, math.nan))
    }
    if not margins:
        return None
    name = max(margins, key=margins.__getitem__)
    return Border(c.prompt, c.text, c.dose, name, c.checks[name], gauges[name][0], c.reasons, margins[name])
