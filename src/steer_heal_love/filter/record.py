"""A round's record of its walk and its filter, from the completions alone: a run that goes on makes the same one."""

from __future__ import annotations

from steer_heal_love.config import FilterConfig, WalkConfig
from steer_heal_love.filter.kept import sampled
from steer_heal_love.filter.walk import tally
from steer_heal_love.nouns import Completion, WalkRecord


def recorded(
    completions: list[Completion],
    calibration: list[Completion],
    *,
    coherent: float,
    walk: WalkConfig,
    filter: FilterConfig,
) -> WalkRecord:
    """What the walk found in `completions`. `calibration`: the base's own samples, `coherent` their coherent share."""
    counts = tally(completions, walk, coherent)
    starved = counts["dose"] is None or counts["used"] < filter.least
    return WalkRecord(**counts, **sampled(completions, calibration, counts["dose"]), starved=starved)
