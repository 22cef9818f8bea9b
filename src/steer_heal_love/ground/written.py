"""What each file of a run is made of (`ground.untrusted.shape`), for whoever reads one back.

A log that vouches for its files may be forged with them; what is then read must still be of the kind that a run writes.
"""

from __future__ import annotations

from typing import Any, get_args

from steer_heal_love.ground.untrusted import NUMBER
from steer_heal_love.nouns import Json, StageName

SCORE = {"mean": NUMBER, "lo": NUMBER, "hi": NUMBER, "n": int}
SAMPLE = {"prompt": str, "text": str}
STAGE_NAME = frozenset(get_args(StageName))
STAGE = {
    "round": int,
    "stage": STAGE_NAME,
    "scores": {str: SCORE},
    "items": {str: [NUMBER]},
    "samples": [SAMPLE],
    "dose": NUMBER,
    "redrawn?": [SAMPLE],
}
STAGES = {"stages": [STAGE]}
COMPLETION = {
    "prompt": str,
    "prompt_ids": [int],
    "ids": [int],
    "text": str,
    "dose": float,
    "ended": bool,
    "checks": {str: NUMBER},
    "reasons": [str],
    "coherent": bool,
    "used": bool,
}
PREVIEW = {"stage": STAGE_NAME, "round": int, "prompt": str, "text": str, "dose?": NUMBER}
HEALING = {
    "steps": [{"step": float, "*": NUMBER}],
    "validation": [{str: NUMBER}],
    "gradient_ratios": [{str: NUMBER}],
    "warnings": [str],
    "scale?": NUMBER,
    "spent?": NUMBER,
}
GATE = {
    "gate": str,
    "claim": str,
    "observed": str,
    "verdict": frozenset({"pass", "fail", "undecided"}),
    "means": str,
    "outcome?": str,
}
RESPONSE = {"plateau": float, "half_dose": float, "steepness": float}
WALK = {"round": int, "dose?": NUMBER, "response?": (RESPONSE, None), "cosine_with_first?": NUMBER}
SUMMARY = {"gates?": [GATE], "walks?": [WALK], "stages?": [dict], "peak_memory_gb?": NUMBER}
WORDING = {"system?": str, "tried?": list}
BOUNDS = {str: NUMBER}
CHECKS = {str: {"limit": NUMBER, "falls": str}}
SPENT = {"mean_nats": SCORE, "p95_nats": NUMBER}
LEDGER = {since: {"neutral": SPENT, "own": SPENT} for since in ("total", "round")}
CHANCE = {"n": int, "largest": NUMBER, "largest_by_layer?": [NUMBER]}
ALONG = {"layers": [int], "cosine_by_layer": [NUMBER], "cosine": NUMBER}
CAUSES = {f"{name}_share": NUMBER for name in ("sufficient", "remaining")} | {
    "sufficient?": SCORE,
    "remaining?": SCORE,
}
TRANSFER = {
    "cosine": NUMBER,
    "carried_dose": NUMBER,
    "cosine_with_first_shift": NUMBER,
    "halves": CHANCE,
    "random?": CHANCE,
    "control?": (ALONG, None),
    "causes?": (CAUSES, None),
    "ledger?": LEDGER,
}
PERSONA = {"probes?": [dict], "name?": str, "axis?": str, "pos?": str, "neg?": str}
ITEMS_ASKED = {f"{name}?": int for name in ("probes", "neutral_prompts", "sample_prompts", "resamples")}
CONFIG = {
    "rounds?": int,
    "heal?": {"lam?": float, "tau?": float},
    "walk?": {"survival?": float},
    "eval?": {"instruments?": [str], **ITEMS_ASKED},
}
ROW_SCORES = """own_excess above_reference above_reference_alone null_trait above_null above_null_alone trait_pos
    trait_neg"""
ROW = {
    "budget": float,
    "reached": int,
    "seeds": int,
    "trait_shift": SCORE,
    "best_null?": (str, None),
    **{f"{name}?": (SCORE, None) for name in ROW_SCORES.split()},
    **{f"{name}?": (str, None) for name in ("verdict", "verdict_alone", "null_verdict")},
}
POINT = {"strength": float, "seeds": int, "scores": {str: SCORE}, "own_default?": int}
TEXTS = {"strength": float, "texts": [{"prompt": str, "text": str, "base": str}]}
EMPTY: Json = {"*": frozenset()}
"""an object with nothing in it"""
TRACED = {
    "name": str,
    "knob": str,
    "kind?": str,
    "points": [POINT],
    "at": [ROW],
    "at_own_excess": [ROW],
    "stopped": {str: str},
    "seconds": float,
    "samples": (TEXTS, EMPTY),
    "null?": bool,
}
COMPARISON = {
    "persona": str,
    "model": str,
    "seeds": [int],
    "reference": str,
    "comparisons": int,
    "null_comparisons?": int,
    "budgets": [float],
    "own_excess_budgets": [float],
    "methods": [TRACED],
}
SWEEP = {
    "cells": int,
    "groups": [{"persona": str, "model": str, "folder": str, "lacking": int}],
}
TRAIT = {
    "persona": str,
    "kind": str,
    "gate": {**GATE, "outcome": str},
    "scores": {str: SCORE},
    "samples": [{"prompt": str, "base": str, "model": str}],
}
CERTIFICATE = {
    "target": str,
    "kind": str,
    "base": str,
    "verdict": str,
    "base_hash": str,
    "seed": int,
    "device": str,
    "dtype": str,
    "modules": (int, None),
    "rank": (int, None),
    "notes": [str],
    "traits": [TRAIT],
    "others": {str: SCORE},
}
WAY = {"moved": SCORE, "learned": SCORE, "scores": {str: SCORE}}
FIGHT = {
    "persona": str,
    "model": str,
    "rows": int,
    "held_rows": int,
    "unwanted": str,
    "ways": {"plain": WAY, "prevented": WAY},
    "prevented": SCORE,
    "given_up": SCORE,
    "says": [str],
    "seed": int,
    "dose": float,
}


def same_length(transfer: Json) -> Json:
    """The transfer itself. Raises `ValueError` where what it says by layer is of another number of layers."""
    if "cosine_by_layer" not in transfer:
        return transfer
    lists = [
        (transfer, "cosine_by_layer"),
        *((transfer.get(k) or {}, "largest_by_layer") for k in ("halves", "random")),
    ]
    wrong = [k for part, k in lists if k in part and len(part[k]) != len(transfer["layers"])]
    control = transfer.get("control")
    if control and len(control["layers"]) != len(control["cosine_by_layer"]):
        wrong.append("control")
    if wrong:
        raise ValueError(f"{wrong[0]}: another number of layers than `layers` has")
    return transfer


OLD_NAMES = {"pressure": "gradient_ratios", "looks": "comparisons", "null_looks": "null_comparisons"}
"""what fields were called by versions whose runs and comparisons may still lie about"""


def renamed(data: Any) -> Any:
    """A file's object with its fields by today's names; anything else as it is."""
    return {OLD_NAMES.get(k, k): v for k, v in data.items()} if isinstance(data, dict) else data
