"""What each setting may be by itself: ranges of numbers, and one of the options. All mistakes are told at once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin, get_type_hints

from steer_heal_love.ground.errors import UserError

MOST = 10**9
"""no count of anything reaches this; only a seed may"""
SEED = 10**15
"""what a seed is below: every file that names one can be read back"""
RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "at least 1": (
        lambda v: v >= 1,
        """rounds batch_tokens split generate.prompts generate.max_new_tokens generate.batch walk.passes filter.keep
        filter.calibration filter.least heal.rank heal.epochs heal.batch heal.micro_batch heal.anchor_tokens
        heal.anchor_batch eval.probes eval.vignettes eval.paraphrases eval.capability_blocks eval.neutral_prompts
        adapt.window eval.base_draws eval.healed_draws eval.sample_tokens eval.resamples""",
    ),
    "at least 2": (lambda v: v >= 2, "vector.contexts walk.doses"),
    "at least 4": (lambda v: v >= 4, "eval.behaviour_prompts"),
    "a number, at least 0": (
        lambda v: 0 <= v < math.inf,
        """coherence_floor patience replicas adapt.half_life adapt.cap_nats adapt.rewinds generate.temperature
        eval.temperature heal.weight_decay heal.spectral heal.lam heal.tau heal.anchor heal.teacher
        heal.anchor_prompts heal.budget eval.think_tokens eval.lm_eval_limit eval.sample_prompts""",
    ),
    "a number above 0": (
        lambda v: 0 < v < math.inf,
        "walk.start walk.floor walk.ceiling walk.nats heal.alpha heal.lr heal.anchor_temperature",
    ),
    "a number above 1": (lambda v: 1 < v < math.inf, "walk.span"),
    "from 0 to 1": (lambda v: 0 <= v <= 1, "heal.soft"),
    "from -1 to 1": (lambda v: -1 <= v <= 1, "condition.value"),
    "from 0 to below 1": (
        lambda v: 0 <= v < 1,
        "condition.layer generate.min_p eval.min_p eval.neutral_min_p heal.validation heal.anchor_validation",
    ),
    "above 0, at most 1": (lambda v: 0 < v <= 1, "filter.quantile adapt.shrink adapt.quantile"),
    "above 0 and below 1": (lambda v: 0 < v < 1, "walk.survival"),
    "two shares of the depth, rising": (lambda v: 0 <= v[0] < v[1] <= 1, "vector.layers heal.layers"),
}
"""what each number may be; a seed may be anything"""


def named(config: Any, where: str = "") -> dict[str, tuple[Any, Any]]:
    """Every setting under its room's name: its value and its type."""
    out: dict[str, tuple[Any, Any]] = {}
    for name, kind in get_type_hints(type(config)).items():
        value = getattr(config, name)
        out |= named(value, f"{name}.") if dataclasses.is_dataclass(value) else {where + name: (value, kind)}
    return out


def mistakes(config: Any) -> list[str]:
    """A line for every setting that lies out of its own range. What one setting asks of another isn't asked here."""
    found = named(config)
    out = [
        f"{name}: {wanted}, found {found[name][0]!r}"
        for wanted, (fine, names) in RANGES.items()
        for name in names.split()
        if not fine(found[name][0])
    ]
    for name, (value, kind) in found.items():
        if get_origin(kind) is Literal and value not in get_args(kind):
            out.append(f"{name}: {' or '.join(get_args(kind))}, found {value!r}")
    for name, (value, kind) in found.items():
        most = SEED if name == "seed" else MOST
        if kind is int and isinstance(value, int) and abs(value) >= most:
            out.append(f"{name}: below {most:,}, found {value!r:.60}")
    return out


def refuse(wrong: list[str]) -> None:
    """Raise one `UserError` with every line, if there is any."""
    if wrong:
        raise UserError("settings out of range:\n" + "\n".join(f"  {line}" for line in wrong))
