"""From items to scores: a score is the plain mean of its items, or their paired shift from base; its name says which.

Every interval is one over items (`ground.stats`). An item list of a stage and that of its base are in the same order.
"""

from __future__ import annotations

from steer_heal_love.evals import profile
from steer_heal_love.ground.stats import CROSS_FITTED, bootstrap, paired, proportion, subtract, widened
from steer_heal_love.nouns import Items, Scores

SHIFTS = {
    "trait_shift": "trait", "trait_pos": "nll_pos", "trait_neg": "nll_neg",
    "trait_over_neutral": "over_neutral", "trait_over_off_topic": "over_off_topic",
    "trait_generated_shift": "trait_generated", "own_excess": "own_nll",
    "own_excess.probes": "own_nll.probes", "own_excess.neutral": "own_nll.neutral",
    "own_entropy_shift": "own_entropy", "repetition_shift": "repetition", "distinct_2_shift": "distinct_2",
    "capability_shift": "capability", "capability_margin_shift": "capability_margin",
    "behaviour_shift": "behaviour", "behaviour_masked_shift": "behaviour_masked",
    "relevance_shift": "relevance", "relevance_shift.probes": "relevance.probes", "relevance_shift.neutral": "relevance.neutral",
}  # fmt: skip
"""the scores that are shifts from base, and the items they are read from"""
FALLS = frozenset({"trait_pos"})
"""the shifts that count a fall as positive: base − value instead of value − base"""
PROFILES = ("mfv.", "mfv_fc.", "tinymfv.")
"""how the names of scores begin that are shifts by themselves"""
CROSSFITTED = ("text_auc",)
"""items that were scored by classifiers trained on the other items"""
AUCS = ("behaviour_auc", "behaviour_masked_auc")
"""out-of-fold AUCs of a readout: parts by prompt"""


def by_item(name: str, items: Items, base: Items) -> list[float]:
    """A score's values by item, a shift from base where its name says so. `KeyError` for what was not measured."""
    source = SHIFTS.get(name)
    if source is None:
        return items[name]
    pair = (base[source], items[source]) if name in FALLS else (items[source], base[source])
    return subtract(*pair)


def scores(items: Items, base: Items, *, resamples: int, seed: int = 0) -> Scores:
    """Means with bootstrap intervals over items; shifts are paired with the base, item by item."""
    out: Scores = profile.constant_share(items, base, resamples=resamples, seed=seed)
    for name, values in items.items():
        if name.startswith(profile.SENTENCE):
            continue
        if name.startswith(PROFILES):
            shift = paired(values, base[name], resamples=resamples, seed=seed)
            out[name] = profile.with_sentences(name, shift, items, base)
        elif name in CROSSFITTED:
            out[name] = widened(bootstrap(values, resamples=resamples, seed=seed))
        elif name in AUCS:
            out[name] = proportion(values, effect=CROSS_FITTED)
        else:
            out[name] = bootstrap(values, resamples=resamples, seed=seed)
    for name, source in SHIFTS.items():
        if source in items and source in base:
            out[name] = bootstrap(by_item(name, items, base), resamples=resamples, seed=seed)
    for name in items:
        if name.startswith("lm_eval."):
            out[f"{name}_shift"] = paired(items[name], base[name], resamples=resamples, seed=seed)
    return out
