"""The completions on both sides of the filter's cut: what a reader needs in order to trust it.

In: a round's judged completions, the bounds, and what the run recorded of the checks. Out: the kept ones that nearly fell, the dropped ones that
nearly stayed. A completion's margin is that of its worst calibrated check, in standard deviations of it:

    margin = max_k side_k · (value_k − bound_k) / sd_k        (≤ 0 stays, > 0 falls)
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class Gauge:
    """A calibrated check's bound, the side that falls (+1 above, −1 below), its spread, and whether the bound is the
    end of the scale: then nothing lies inside it, and a value at it is not near the cut but as good as any."""

    bound: float
    side: float
    spread: float
    end: bool

    def margin(self, value: float) -> float:
        if not math.isfinite(value) or (self.end and value == self.bound):
            return -math.inf
        return self.side * (value - self.bound) / self.spread


def borderline(
    completions: list[Completion],
    bounds: Mapping[str, float],
    checks: Mapping[str, Mapping[str, Any]],
    n: int = 4,
) -> tuple[list[Border], list[Border]]:
    """The `n` kept and the `n` dropped completions nearest to the cut, nearest first."""
    gauges = {k: g for k, c in checks.items() if (g := gauge(completions, k, bounds.get(k, math.nan), c))}
    found = [worst(c, gauges) for c in completions if gauges]
    kept = [b for c, b in zip(completions, found, strict=False) if b and c.kept]
    dropped = [b for c, b in zip(completions, found, strict=False) if b and b.margin > 0 and not c.kept]
    return (
        sorted(kept, key=lambda b: -b.margin)[:n],
        sorted(dropped, key=lambda b: b.margin)[:n],
    )


def gauge(completions: list[Completion], name: str, bound: float, check: Mapping[str, Any]) -> Gauge | None:
    """None for a fixed limit and for a check without bound or spread: nothing is near those."""
    values = [v for c in completions if math.isfinite(v := c.checks.get(name, math.nan))]
    spread = statistics.pstdev(values) if values else 0.0
    if check["limit"] is not None or not math.isfinite(bound) or spread == 0:
        return None
    side = 1.0 if check["falls"] == "above" else -1.0
    return Gauge(bound, side, spread, all(side * (v - bound) >= 0 for v in values))


def worst(c: Completion, gauges: Mapping[str, Gauge]) -> Border | None:
    margins = {name: g.margin(c.checks.get(name, math.nan)) for name, g in gauges.items()}
    name = max(margins, key=margins.__getitem__)
    if margins[name] == -math.inf:
        return None
    return Border(
        c.prompt, c.text, c.dose, name, c.checks[name], gauges[name].bound, c.reasons, margins[name]
    )
