"""The published evaluation itself: forced choice on the classic vignettes, by the package that defines it.

In: the model under test, handed to `evaluate` of the package `moralmaps`, or `tinymfv` as it was called before, with
its own defaults. Out: per vignette, in the order of (id, condition), tinymfv.<Foundation>, the centred log-ratio of its
`p`; and, one number each, what it says of the whole: tinymfv_profile.<Foundation> (and _T, at the fitted temperature;
tinymfv_human: people's), tinymfv_top1, tinymfv_informedness, tinymfv_p_ans_any, tinymfv_unscorable, tinymfv_nll_prefill. What is missing is undefined.
"""

from __future__ import annotations

import importlib
import math
from types import ModuleType

import numpy as np

from steer_heal_love.evals import Subject, instrument
from steer_heal_love.ground.declared import Declared, Panel
from steer_heal_love.ground.errors import UserError
from steer_heal_love.nouns import FOUNDATIONS, Items, Json

NAMES = ("moralmaps", "tinymfv")
CONDITIONS = {"see": "other_violate", "you": "self_violate"}
"""by eval.vignette_view"""
SUMMARY = {
    "tinymfv_top1": ("top1_acc",),
    "tinymfv_informedness": ("informedness",),
    "tinymfv_p_ans_any": ("mean_pmass_allowed",),
    "tinymfv_unscorable": ("frac_unscorable",),
    "tinymfv_nll_prefill": ("mean_nll_prefill", "mean_nll_json"),
}
"""our name, and the package's, the newer first"""
COLUMNS = {"model": "tinymfv_profile", "model_T": "tinymfv_profile_T", "human": "tinymfv_human"}
"""of its profile, and our names: the model's, the same at the fitted temperature, and people's"""
THINK = 64
"""tokens of thought where eval.think_tokens asks for none: the package's default"""


def package() -> ModuleType:
    """The package under whichever name it is installed. Raises `UserError` when it is under neither."""
    for name in NAMES:
        try:
            found = importlib.import_module(name)
        except ModuleNotFoundError as e:
            if e.name != name:
                raise
            continue
        if hasattr(found, "evaluate"):
            return found
    raise UserError(
        f"instrument 'tinymfv' needs the package {' or '.join(NAMES)} with its function `evaluate`. It is not on the "
        "package index; install it from its repository: pip install git+https://github.com/wassname/tinymfv. "
        "Without it, forced_choice asks the same kind of question on any bank, by a protocol of its own."
    )


SCORES = (
    Declared(
        "tinymfv_p_ans_any", 86, panel=Panel("tinymfv: mass on the allowed answers", "probability", "format")
    ),
    Declared(
        "tinymfv_unscorable", 87, interval="share", panel=Panel("tinymfv: not scorable", "share", "format")
    ),
    Declared(
        "tinymfv_nll_prefill", 88, panel=Panel("tinymfv: NLL of the forced text", "nats/token", "format")
    ),
)


@instrument("tinymfv", ready=lambda _config: package(), optional=True, scores=SCORES)
def tinymfv(s: Subject) -> Items:
    found = package().evaluate(
        s.model,
        s.tok,
        name="classic",
        n_vignettes=None,
        conditions=(CONDITIONS[s.config.vignette_view],),
        max_think_tokens=s.config.think_tokens or THINK,
        batch_size=8,
        device=s.model.device,
        return_per_row=True,
    )
    return mapped(found)


def mapped(found: Json) -> Items:
    """The package's result in our names."""
    rows = sorted(found["per_row"], key=lambda row: (str(row["id"]), str(row["condition"])))
    p = np.array([row["p"] for row in rows], dtype=float).reshape(len(rows), len(FOUNDATIONS))
    log_p = np.log(p, where=p > 0, out=np.full_like(p, math.nan))
    clr = log_p - log_p.mean(1, keepdims=True)
    items = {f"tinymfv.{f}": clr[:, i].tolist() for i, f in enumerate(FOUNDATIONS)}
    profile = found["profile"]
    for column, name in COLUMNS.items():
        for foundation, value in zip(profile["foundation"], profile[column], strict=True):
            items[f"{name}.{ours(foundation)}"] = [float(value)]
    for name, theirs in SUMMARY.items():
        value = next((found[key] for key in theirs if found.get(key) is not None), math.nan)
        items[name] = [float(value)]
    return items


def ours(name: str) -> str:
    """Our name of a foundation that the package calls by its first word, in lower case."""
    known = {f.lower(): f for f in FOUNDATIONS} | {"social": "SocialNorms"}
    key = str(name).lower().replace(" ", "").replace("_", "")
    if key not in known:
        raise ValueError(f"tinymfv names a foundation {name!r}; known are {sorted(known)}")
    return known[key]
