"""What the kept text is like, against the base's own samples under the same filter.

trait_gain: mean on-trait evidence of what was kept up to the dose, minus that of the base's own kept samples; the
same bounds cut both, so that selection cancels and only steering is left.
soup_share: of the training text, read without the run's bounds: it goes in circles, is in foreign characters, or
holds a stretch odder than anything the base itself wrote.
soup_gap: that share minus the same share of the base's own samples, kept or not: a base that repeats itself is its own
measure. Both differences, and their intervals, are of means by prompt: a prompt has several answers.
"""

from __future__ import annotations

import math
from typing import TypedDict

from steer_heal_love.filter.script import odd_share
from steer_heal_love.ground.stats import by_group, unpaired
from steer_heal_love.ground.text import repeated_share, spoken
from steer_heal_love.nouns import Completion, Score

CIRCLES = 0.3
"""share of repeated word trigrams"""
FOREIGN = 0.15
"""share of odd characters"""


class Sampled(TypedDict):
    """The part of a `WalkRecord` that is read from what was kept."""

    trait_gain: Score
    soup_share: float
    soup_gap: Score


def sampled(made: list[Completion], base: list[Completion], dose: float | None) -> Sampled:
    """`trait_gain` (nats/token) and `soup_gap` (Scores) and `soup_share` of one round; undefined where nothing was kept."""
    by_prompt = lambda of, some: by_group([of(c) for c in some], [c.prompt for c in some])
    trait = lambda made: by_prompt(lambda c: c.checks.get("on_trait", math.nan), [c for c in made if c.kept])
    up_to = [c for c in made if dose is not None and c.dose <= dose]
    odd = max((v for c in base if math.isfinite(v := c.checks.get("nll_window", math.nan))), default=math.inf)
    used = [c for c in made if c.used]
    ours, theirs = (by_prompt(lambda c: float(soup(c, odd)), side) for side in (used, base))
    return {
        "trait_gain": unpaired(trait(up_to), trait(base)),
        "soup_share": sum(soup(c, odd) for c in used) / len(used) if used else math.nan,
        "soup_gap": unpaired(ours, theirs),
    }


def soup(c: Completion, odd: float) -> bool:
    """Whether a reader would call it soup, whatever the run's own bounds say."""
    circles = repeated_share(spoken(c.text)) > CIRCLES
    return circles or odd_share(c) > FOREIGN or c.checks.get("nll_window", 0.0) > odd
