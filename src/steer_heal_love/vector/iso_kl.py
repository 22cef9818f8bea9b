"""The dose in nats: where steering changes the next token's distribution by a given divergence.

    D_t = KL(p_steered(· | y_<t) ‖ p_unsteered(· | y_<t)),   y sampled from the steered model itself

In: rendered prompts, what steers, nats. Out: the dose at which the 95th percentile of D_t over all tokens of those answers
is that many nats, what was measured there, and every dose tried. The curve is read at several doses in one batch; then
the secant in log dose and log nats says where to read next. Doses of different methods and operations are comparable so.

Identity: at dose 0 every D_t is 0. Where the target can't be reached (a rotation stops at its direction) the nearest
reading is given, and `reached` is false. Source: our own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel

from steer_heal_love.config import GenerateConfig
from steer_heal_love.ground.decode import sample
from steer_heal_love.ground.divergence import reverse_kl
from steer_heal_love.ground.operations import Steering
from steer_heal_love.ground.progress import Track, silent
from steer_heal_love.ground.scoring import hidden_states, token_divergence
from steer_heal_love.nouns import Tokens

QUANTILE = 0.95
STEPS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""doses of the first pass, as multiples of where it starts"""
LEAST, MOST = 1e-3, 64.0
"""no dose below or above is tried"""
REACH = 8.0
"""the largest factor between a dose and the next one where the target lies beyond what was tried"""
TOLERANCE = 0.1
"""how far a reading may be from the target, as a share of it"""


@dataclass(frozen=True)
class Reading:
    """The 95th percentile of the per-token divergence at one dose, over `n` tokens of the steered model's answers; infinite
    where the model gives no numbers any more."""

    dose: float
    kl_nats: float
    n: int


@dataclass(frozen=True)
class IsoDose:
    """The dose found for `nats`, what was measured at it, after how many passes, and all that was tried."""

    nats: float
    dose: float
    kl_nats: float
    n: int
    passes: int
    tried: list[Reading] = field(default_factory=list)

    @property
    def reached(self) -> bool:
        """Whether the measured divergence is the one sought, within twice the tolerance of the search."""
        return near(self.kl_nats, self.nats, 2 * TOLERANCE)


@dataclass(frozen=True)
class Trials:
    """What the answers are drawn to and how: rendered prompts, tokens that end an answer, sampling, a seed."""

    prompts: list[tuple[int, ...]]
    ends: frozenset[int]
    config: GenerateConfig
    seed: int
    batch_tokens: int = 4096


def iso_kl(
    model: PreTrainedModel,
    steering: Steering,
    nats: Iterable[float],
    trials: Trials,
    *,
    start: float = 0.2,
    passes: int = 4,
    track: Track = silent,
) -> list[IsoDose]:
    """One dose for each of `nats`; they share their passes. `start`: the middle of the first pass's doses.

    Raises `ValueError` for nats that are not above 0.
    """
    wanted = list(nats)
    if not all(0 < x < math.inf for x in wanted):
        raise ValueError(f"nats: above 0, found {wanted}")
    tried: list[Reading] = []
    doses, done = [within(start * s) for s in STEPS], 0
    with track("dose in nats", passes) as advance:
        while doses and done < passes:
            tried += readings(model, steering, sorted(set(doses)), trials, seed=trials.seed + done)
            done += 1
            advance(1)
            missed = [x for x in wanted if not near(closest(tried, x).kl_nats, x, TOLERANCE)]
            seen = {r.dose for r in tried}
            doses = [d for d in (aim(tried, x) for x in missed) if d not in seen]
        advance(passes - done)
    found = [closest(tried, x) for x in wanted]
    order = sorted(tried, key=lambda r: r.dose)
    return [IsoDose(x, r.dose, r.kl_nats, r.n, done, order) for x, r in zip(wanted, found, strict=True)]


def readings(
    model: PreTrainedModel, steering: Steering, doses: list[float], trials: Trials, *, seed: int
) -> list[Reading]:
    """The divergence at each dose over answers that the steered model gives to every prompt, all in one batch."""
    t, n = trials, len(trials.prompts)
    asked = [p for _ in doses for p in t.prompts]
    how: dict[str, Any] = {
        "max_new_tokens": t.config.max_new_tokens,
        "temperature": t.config.temperature,
        "min_p": t.config.min_p,
        "batch": t.config.batch,
        "label": "steered answers",
    }
    answers = sample(
        model,
        asked,
        ends=t.ends,
        seed=seed,
        steer=steering.directions,
        operation=steering.operation,
        doses=[d for d in doses for _ in t.prompts],
        **how,
    )
    tokens = [Tokens(p, a) for p, a in zip(asked, answers, strict=True)]
    plain = hidden_states(model, tokens, batch_tokens=t.batch_tokens)
    out = []
    for i, dose in enumerate(doses):
        mine = slice(i * n, (i + 1) * n)
        with steering(model, dose):
            found = token_divergence(
                model, tokens[mine], plain[mine], divergence=reverse_kl, batch_tokens=t.batch_tokens
            )
        kl = torch.cat(found).double()
        value = kl.quantile(QUANTILE).item() if kl.isfinite().all() else math.inf
        out.append(Reading(dose, max(value, 0.0), len(kl)))
    return out


def aim(tried: list[Reading], nats: float) -> float:
    """Where to read next: on the chord in log dose and log nats between the readings on either side of the target, or
    beyond the last one, where nats grow with the square of the dose."""
    order = sorted((r for r in tried if r.kl_nats > 0), key=lambda r: r.dose)
    if not order:
        return within(max(r.dose for r in tried) * REACH)
    above = next((i for i, r in enumerate(order) if r.kl_nats >= nats), len(order))
    if 0 < above < len(order):
        low, high = order[above - 1], order[above]
        finite = math.isfinite(high.kl_nats)
        share = math.log(nats / low.kl_nats) / math.log(high.kl_nats / low.kl_nats) if finite else 0.5
        return within(low.dose * (high.dose / low.dose) ** share)
    end = order[0] if above == 0 else order[-1]
    factor = math.sqrt(nats / end.kl_nats)
    return within(end.dose * min(max(factor, 1 / REACH), REACH))


def closest(tried: list[Reading], nats: float) -> Reading:
    """The reading nearest to the target in log nats; of equal ones the least dose."""
    return min(tried, key=lambda r: (abs(math.log(max(r.kl_nats, 1e-12) / nats)), r.dose))


def near(found: float, wanted: float, tolerance: float) -> bool:
    return found > 0 and abs(math.log(found / wanted)) <= math.log1p(tolerance)


def within(dose: float) -> float:
    return float(f"{min(max(dose, LEAST), MOST):.4g}")
