"""What travels between rooms. Data only: no room is imported here, and nothing here does a room's work.

Nor is torch, so that what needs no tensor doesn't wait for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypedDict

Json = dict[str, Any]
"""An object as JSON or TOML has it: what was read from a file and is checked where it is read (`ground.untrusted`), or
what is about to be written to one. What travels between rooms is a dataclass or a `TypedDict`."""
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
    another question. Both are empty where the persona doesn't give them. `kind`: whether the question
    draws the trait out by itself, or is a plain one that anybody would answer alike.
    """

    question: str
    pos: str
    neg: str
    neutral: str = ""
    off_topic: str = ""
    kind: Literal["elicit", "plain"] = "elicit"


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


@dataclass(frozen=True)
class VectorRecord:
    """What a round's vector says of itself."""

    norm: float
    cosine_with_first: float
    """with the vector of round 0"""
    reliability: float = math.nan
    """cosine of the vectors that two halves of the contexts give"""


@dataclass(frozen=True)
class WalkRecord:
    """What a round's walk of the dose found, and what the filter counted and says of the text that it kept."""

    dose: float | None
    """the dose that was chosen; None where steering breaks most of the text at every dose"""
    survival: dict[float, float]
    """coherent share by dose"""
    response: Response | None
    made: int
    coherent: int
    kept: int
    used: int
    reasons: dict[str, int]
    """how many completions each check dropped"""
    trait_gain: Score
    """on-trait evidence of the kept text above that of the base's own kept text, nats/token"""
    soup_share: float
    """share of the training text that a reader would call broken"""
    soup_gap: Score
    """that share less the same share of the base's own text"""
    starved: bool = False
    """whether too little survived to heal with"""


DOMINATES = 2.0
"""gradient ratio past which a loss term, not the imitation, decides what is learned"""


@dataclass(frozen=True)
class Healing:
    """How one heal went: a row a step, a row an epoch on held-out prompts, gradient ratio, warnings."""

    steps: list[dict[str, float]] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)
    gradient_ratios: list[dict[str, float]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    scale: float = 1.0
    """what the trust region left of the update as it was trained"""
    spent: float = 0.0
    """anchor KL on held-out answers that the exported model has cost so far, in nats/token"""

    def gradient_ratio(self, term: str) -> float:
        """Mean gradient ratio of a loss term, in times the imitation's, over the steps where it was taken; NaN where
        the term is off."""
        seen = [p[term] for p in self.gradient_ratios if math.isfinite(p.get(term, math.nan))]
        return sum(seen) / len(seen) if seen else math.nan


class Along(TypedDict):
    """How a shift of hidden states lies along the teacher's: cosines, the dose that it amounts to, its norms."""

    layers: list[int]
    cosine_by_layer: list[float]
    cosine: float
    carried_dose: float
    shift_norm_by_layer: list[float]


class Chance(TypedDict):
    """Cosines of a shift with `n` directions without meaning; largest by absolute value."""

    mean: float
    sd: float
    largest: float
    largest_by_layer: list[float]
    n: int


class Alignment(Along):
    """`Along`, beside what chance reaches."""

    random: Chance
    halves: Chance


class Divergence(TypedDict):
    """KL in nats per token: its mean over sequences, its tail, over how many tokens."""

    mean_nats: Score
    p95_nats: float
    tokens: int


class Causes(TypedDict):
    """Trait shifts from base, of the student and with the shift of its top layer put in, taken out, or drawn at random."""

    layer: int
    student: Score
    base_plus_shift: Score
    student_minus_shift: Score
    base_plus_random: Score
    sufficient: Score
    sufficient_share: float
    remaining: Score
    remaining_share: float


class Transfer(Alignment, total=False):
    """What a healed student carries of its teacher's vector by itself (`evals.transfer`); the later parts where they were
    asked for. `ledger`: since base or since the round before, on neutral answers or on its own text."""

    cosine_with_first_shift: float
    control: Json
    ledger: dict[str, dict[str, Divergence]]
    causes: Causes


@dataclass(frozen=True)
class Round:
    """One round of the loop as far as it has come: its vector, its walk, then its heal, then what the student carries."""

    number: int
    vector: VectorRecord
    walk: WalkRecord
    healing: Healing | None = None
    transfer: Transfer | None = None

    @property
    def row(self) -> Json:
        """The round in `summary.json`; its heal has a file of its own."""
        row: Json = {
            "round": self.number,
            **vars(self.walk),
            "vector_norm": self.vector.norm,
            "cosine_with_first": self.vector.cosine_with_first,
            "reliability": self.vector.reliability,
        }
        return row if self.transfer is None else row | {"transfer": self.transfer}


class Sample(TypedDict):
    """One of a model's own unsteered samples. `ended`: whether it closed its turn by itself."""

    prompt: str
    ids: list[int]
    text: str
    ended: bool


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
    samples: list[Sample] = field(default_factory=list)
    dose: float | None = None
    redrawn: list[Sample] = field(default_factory=list)
    """further samples of the same prompts; `samples` holds each prompt's first"""


@dataclass(frozen=True)
class Preview:
    """One held-out question answered by one model with its likeliest tokens: to look at while a run goes on.

    `round` is −1 for the base; `dose` is the steered model's.
    """

    stage: StageName
    round: int
    prompt: str
    text: str
    dose: float | None = None


State = Literal["waiting", "running", "done", "stopped", "failed"]


@dataclass(frozen=True)
class CellState:
    """One cell of a sweep as it stands: its axes, what became of it, its seconds (NaN where none are known), who did it.

    `stopped` is an outcome too: the method itself gave up before its first strength.
    """

    persona: str
    method: str
    seed: int
    model: str
    state: State
    seconds: float
    who: str = ""
    why: str = ""


@dataclass(frozen=True)
class Gate:
    """A claim, what was observed, a verdict, and what that outcome means and suggests."""

    gate: str
    claim: str
    observed: str
    verdict: Literal["pass", "fail", "undecided"]
    means: str
    outcome: str = ""
