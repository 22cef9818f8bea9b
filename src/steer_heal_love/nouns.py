"""What travels between rooms. Data only: no room is imported here, and nothing here does a room's work.

Nor is torch, so that what needs no tensor doesn't wait for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

FOUNDATIONS = ("Care", "Fairness", "Loyalty", "Authority", "Sanctity", "Liberty", "SocialNorms")


WORDINGS = (
    "You are {}.",
    "Take the part of {}. Stay in that part in every answer.",
    "In this conversation you speak as {}.",
    "You are {}. Let it show in every sentence that you write.",
    "Whoever writes to you is talking to {}. Answer accordingly.",
    "Answer the user the way that this character would: {}.",
)
"""ways to tell a model who it is, {} being a pole; the first is the one that vectors, filters and methods use"""


class Tokens(NamedTuple):
    """Token ids of a rendered prompt and of what follows it; never re-tokenised."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True)
class Probe:
    """A held-out question with an answer from each pole.

    `neutral` answers it with neither pole's attitude; `off_topic` has the pos pole's tone and answers
    another question. Both are empty where the persona doesn't give them.
    """

    question: str
    pos: str
    neg: str
    neutral: str = ""
    off_topic: str = ""


@dataclass(frozen=True)
class Persona:
    """Two poles of one axis, prompts that train it, probes that never do, and where it should lead.

    `confirmation` holds probes kept apart from `probes`, for a claim settled on those.
    """

    name: str
    axis: str
    pos: str
    neg: str
    intent: dict[str, int]
    elicit: tuple[str, ...]
    plain: tuple[str, ...]
    probes: tuple[Probe, ...]
    confirmation: tuple[Probe, ...] = ()

    def system(self, pole: Literal["pos", "neg"], wording: int = 0) -> str:
        """The system prompt that tells a model to be a pole, in one of `WORDINGS`."""
        return WORDINGS[wording].format(self.pos if pole == "pos" else self.neg)


@dataclass
class Completion:
    """One generated answer: tokens (end-of-turn included), the dose it was steered with, and its verdict.

    `checks` holds every check's value; `reasons` names the checks that dropped it; kept means none did,
    coherent that none about coherence did, used that it was trained on.
    """

    prompt: str
    tokens: Tokens
    text: str
    dose: float
    ended: bool
    checks: dict[str, float] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    coherent: bool = False
    used: bool = False

    @property
    def kept(self) -> bool:
        return bool(self.checks) and not self.reasons


@dataclass(frozen=True)
class Adapter:
    """One round's LoRA: module name → tensors (A [r, in], B [out, r]); ΔW = scaling·B A with scaling = alpha/r."""

    factors: dict[str, tuple[Any, Any]]
    scaling: float

    @property
    def rank(self) -> int:
        return max(a.shape[0] for a, _ in self.factors.values())

    def scaled(self, by: float) -> Adapter:
        """The same update times `by`, carried by B so that alpha and rank stay as trained."""
        return Adapter({n: (a, b * by) for n, (a, b) in self.factors.items()}, self.scaling)


@dataclass(frozen=True)
class Response:
    """The coherent share as it falls with the dose, a Hill curve: what it is unsteered, and the dose that halves it."""

    plateau: float
    half_dose: float
    steepness: float

    def share(self, dose: float) -> float:
        return self.plateau / (1 + (dose / self.half_dose) ** self.steepness)

    def dose(self, survival: float) -> float:
        """Where `survival` of the plateau is left."""
        return self.half_dose * (1 / survival - 1) ** (1 / self.steepness)


@dataclass(frozen=True)
class Score:
    """A mean with its 95% interval over n items; NaN where nothing was defined."""

    mean: float
    lo: float
    hi: float
    n: int

    @classmethod
    def undefined(cls) -> Score:
        return cls(math.nan, math.nan, math.nan, 0)


StageName = Literal["base", "prompt", "steered", "healed"]
Scores = dict[str, Score]
Items = dict[str, list[float]]


@dataclass(frozen=True)
class Stage:
    """One model under the same instruments: scores, and the per-item values they were computed from."""

    round: int
    stage: StageName
    scores: Scores
    items: Items
    samples: list[dict[str, Any]] = field(default_factory=list)
    dose: float | None = None
    redrawn: list[dict[str, Any]] = field(default_factory=list)
    """further samples of the same prompts; `samples` holds each prompt's first"""


@dataclass(frozen=True)
class Gate:
    """A claim, what was observed, a verdict, and what that outcome means and suggests."""

    gate: str
    claim: str
    observed: str
    verdict: Literal["pass", "fail", "undecided"]
    means: str
    outcome: str = ""
