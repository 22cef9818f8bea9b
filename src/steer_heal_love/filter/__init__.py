"""Keep what is coherent and enacts the trait; say of every completion why it fell.

In: completions, and the base model's own samples on the same prompts. Out: the same completions with each
check's value and the reasons they fell, plus the thresholds. A check is one file here with `@check(...)`;
it sees a `Scored` completion and returns one number. Its bound is either fixed, or calibrated: the
`quantile` of the base's own samples, so that "coherent" means "as likely as what this model says anyway".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TypedDict

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steer_heal_love.ground.chat import prompt_ids
from steer_heal_love.ground.progress import Track, silent
from steer_heal_love.ground.registry import Registry
from steer_heal_love.ground.scoring import token_nll, token_order
from steer_heal_love.ground.text import spoken
from steer_heal_love.nouns import Completion, Persona, Tokens


@dataclass(frozen=True)
class Scored:
    """A completion with what the base model thinks of each token: plainly, and as either pole (nats); and the share
    of the answer's other tokens that it finds less likely in that place."""

    completion: Completion
    persona: Persona
    nll: Float[Tensor, " t"]
    nll_pos: Float[Tensor, " t"]
    nll_neg: Float[Tensor, " t"]
    order: Float[Tensor, " t"]

    @cached_property
    def likeliest(self) -> Float[Tensor, " t"]:
        """NLL by whichever reading finds the whole answer likelier: plain, or as the pos pole.

        On-trait text is odd for the plain base and natural for the persona; babble is odd for both.
        """
        return self.nll if self.nll.mean() <= self.nll_pos.mean() else self.nll_pos

    @cached_property
    def words(self) -> list[str]:
        return spoken(self.completion.text)


@dataclass(frozen=True)
class Check:
    """`value(scored)`, and which side of the bound falls. `limit` None means calibrated at `quantile`."""

    name: str
    value: Callable[[Scored], float]
    falls: str
    limit: float | None
    quantile: float | None
    about: str
    text_only: bool = False
    """it needs none of the model's readings, and so is taken beside them"""


checks: Registry[Check] = Registry("check", __name__)


def check(
    name: str,
    *,
    falls: str,
    limit: float | None = None,
    quantile: float | None = None,
    about: str = "coherence",
    text_only: bool = False,
) -> Callable[[Callable[[Scored], float]], Callable[[Scored], float]]:
    """Register a check that drops values "above" or "below" a fixed `limit`, or a calibrated bound.

    A calibrated check cuts at the run's quantile unless it names its own. What it is `about`, "coherence" or
    "trait", decides whether the dose is walked down for it. `text_only`: it looks at the text, and at no likelihood.
    """

    def register(value: Callable[[Scored], float]) -> Callable[[Scored], float]:
        checks.register(name, Check(name, value, falls, limit, quantile, about, text_only))
        return value

    return register


def score(
    model: PreTrainedModel,
    tok: PreTrainedTokenizerBase,
    completions: list[Completion],
    persona: Persona,
    *,
    batch_tokens: int = 4096,
    track: Track = silent,
) -> list[Scored]:
    """Read each completion's tokens with `model` (the pristine base): plainly, and under each pole."""
    with track("filter", 3 * len(completions)) as advance:
        plain = token_order(
            model, [c.tokens for c in completions], batch_tokens=batch_tokens, advance=advance
        )
        poles = []
        for pole in ("pos", "neg"):
            system = persona.system(pole)  # type: ignore[arg-type]
            view = [Tokens(prompt_ids(tok, c.prompt, system), c.tokens.answer) for c in completions]
            poles.append(token_nll(model, view, batch_tokens=batch_tokens, advance=advance))
    return [
        Scored(c, persona, nll=nll, nll_pos=pos, nll_neg=neg, order=order)
        for c, (nll, order), pos, neg in zip(completions, plain, *poles, strict=True)
    ]


def measure(
    scored: list[Scored], names: tuple[str, ...] = (), early: list[dict[str, float]] | None = None
) -> list[Completion]:
    """Fill in each completion's `checks`: the value of every named check (all when none is named). `early`: values of each
    that were taken before."""
    for s, known in zip(scored, early or [{}] * len(scored), strict=True):
        s.completion.checks = {
            name: known[name] if name in known else value(s, name) for name in names or tuple(checks)
        }
    return [s.completion for s in scored]


def value(s: Scored, name: str) -> float:
    return float(checks[name].value(s))


def measured(
    model: PreTrainedModel,
    tok: PreTrainedTokenizerBase,
    completions: list[Completion],
    persona: Persona,
    names: tuple[str, ...] = (),
    *,
    batch_tokens: int = 4096,
    track: Track = silent,
) -> list[Completion]:
    """`measure` of what `score` reads. Checks of the text alone are taken meanwhile, so that a GPU needn't wait for them."""
    of_text = [name for name in names or tuple(checks) if checks[name].text_only]
    take = lambda s: {name: value(s, name) for name in of_text}
    with ThreadPoolExecutor(1) as aside:
        early = aside.submit(lambda: [take(unread(c, persona)) for c in completions])
        scored = score(model, tok, completions, persona, batch_tokens=batch_tokens, track=track)
    return measure(scored, names, early.result())


def unread(completion: Completion, persona: Persona) -> Scored:
    """A completion that no model has read."""
    return Scored(completion, persona, *(torch.empty(0) for _ in range(4)))


def calibrate(base: list[Completion], quantile: float) -> dict[str, float]:
    """Each check's bound: its fixed limit, or the quantile of the base's own measured samples."""
    bounds = {}
    for name in base[0].checks:
        c = checks[name]
        at = quantile if c.quantile is None else c.quantile
        values = [v for s in base if math.isfinite(v := s.checks[name])]
        if c.limit is not None:
            bounds[name] = c.limit
        else:
            at = at if c.falls == "above" else 1 - at
            bounds[name] = float(np.quantile(values, at)) if values else math.nan
    return bounds


class Side(TypedDict):
    """Which values of a check fall, and its fixed limit, if it has one."""

    falls: str
    limit: float | None


def sides(names: Iterable[str]) -> dict[str, Side]:
    """What a reader of the bounds needs of each check: which side falls, and its fixed limit, if it has one."""
    return {name: {"falls": checks[name].falls, "limit": checks[name].limit} for name in names}


def judge(completions: list[Completion], bounds: dict[str, float]) -> list[Completion]:
    """Fill in `reasons` and `coherent` from the measured values; an undefined value falls."""
    for c in completions:
        c.reasons = [n for n, bound in bounds.items() if not passes(c.checks[n], bound, checks[n].falls)]
        c.coherent = all(checks[n].about != "coherence" for n in c.reasons)
    return completions


def passes(value: float, bound: float, falls: str) -> bool:
    """Whether a value stays on the right side; NaN never does."""
    return value <= bound if falls == "above" else value >= bound


def select(completions: list[Completion], keep: int) -> list[Completion]:
    """Mark and return the `keep` most on-trait survivors, each text once."""
    best: dict[str, Completion] = {}
    for c in sorted((c for c in completions if c.kept), key=lambda c: -c.checks.get("on_trait", 0.0)):
        best.setdefault(c.text, c)
    chosen = list(best.values())[:keep]
    for c in chosen:
        c.used = True
    return chosen
