"""What travels between rooms. Data only: no room is imported here, and nothing here does a room's work.

Nor is torch, so that what needs no tensor doesn't wait for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

FOUNDATIONS = ("Care", "Fairness", "Loyalty", "Authority", "Sanctity", "Liberty", "SocialNorms")


class Tokens(NamedTuple):
    """Token ids of a rendered prompt and of what follows it; never re-tokenised."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True)
class Probe:
    """A held-out question with an answer from each pole."""

    question: str
    pos: str
    neg: str


@dataclass(frozen=True)
class Persona:
    """Two poles of one axis, prompts that train it, probes that never do, and where it should lead."""

    name: str
    axis: str
    pos: str
    neg: str
    intent: dict[str, int]
    elicit: tuple[str, ...]
    plain: tuple[str, ...]
    probes: tuple[Probe, ...]

    def system(self, pole: Literal["pos", "neg"]) -> str:
        return f"You are {self.pos if pole == 'pos' else self.neg}."


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


@dataclass(frozen=True)
class Gate:
    """A claim, what was observed, a verdict, and what that outcome means and suggests."""

    gate: str
    claim: str
    observed: str
    verdict: Literal["pass", "fail", "undecided"]
    means: str
    outcome: str = ""
