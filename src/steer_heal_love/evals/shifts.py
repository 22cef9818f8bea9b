"""From items to scores: a score is the plain mean of its items, or their paired shift from base, as the instrument declares it.

Every interval is one over items (`ground.stats`). An item list of a stage and that of its base are in the same order.
"""

from __future__ import annotations

from steer_heal_love.evals import profile
from steer_heal_love.ground.declared import Declared, declared, shifts
from steer_heal_love.ground.stats import (
    CROSS_FITTED,
    bootstrap,
    by_group,
    counted,
    paired,
    proportion,
    subtract,
    widened,
)
from steer_heal_love.nouns import Items, Scores

PROFILES = ("mfv.", "mfv_fc.", "tinymfv.")
"""how the names of scores begin that are shifts by themselves"""
PLAIN = Declared("", 0)
"""what holds for a score that no instrument declares: the plain mean of its items"""


def by_item(name: str, items: Items, base: Items) -> list[float]:
    """A score's values by item, a shift from base where its name says so. `KeyError` for what was not measured."""
    score = declared.get(name)
    if score is None or not score.shift:
        return items[name]
    ours, theirs = (in_blocks(side[score.source], score.block) for side in (items, base))
    return subtract(ours, theirs) if score.shift == "rise" else subtract(theirs, ours)


def in_blocks(values: list[float], size: int) -> list[float]:
    """The mean of each block of `size` values, or the values where no block has several."""
    return values if size == 1 else by_group(values, [i // size for i in range(len(values))])


def declaration(name: str) -> Declared:
    """What its instrument declares of a score; a part of one, such as `capability.facts`, is as the whole."""
    whole = name if name in declared else name.partition(".")[0]
    return declared.get(whole, PLAIN)


def scores(items: Items, base: Items, *, resamples: int, seed: int = 0) -> Scores:
    """Means with bootstrap intervals over items; shifts are paired with the base, item by item."""
    out: Scores = profile.constant_share(items, base, resamples=resamples, seed=seed)
    for name, values in items.items():
        if name.startswith(profile.SENTENCE):
            continue
        if name.startswith(PROFILES):
            shift = paired(values, base[name], resamples=resamples, seed=seed)
            out[name] = profile.with_sentences(name, shift, items, base)
            continue
        how = declaration(name)
        if how.interval == "auc":
            out[name] = proportion(values, effect=CROSS_FITTED)
        elif how.interval == "share" and how.block > 1:
            out[name] = proportion(in_blocks(values, how.block))
        else:
            found = counted(values, resamples=resamples, seed=seed, share=how.interval == "share")
            out[name] = widened(found) if how.interval == "cross-fitted" else found
    for score in shifts():
        if score.source in items and score.source in base:
            name = score.name
            out[name] = bootstrap(by_item(name, items, base), resamples=resamples, seed=seed)
    for name in items:
        if name.startswith("lm_eval."):
            out[f"{name}_shift"] = paired(items[name], base[name], resamples=resamples, seed=seed)
    return out
