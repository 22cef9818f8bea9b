"""What has no idea of the trait, and how far it gets on the probes: the nulls that every stage is set beside.

    bias     z + s·b,  b = mean over tokens of z(told pos) − z(told neg), the base's logits over its own answers
    cooled   z·β with β > 1: the base at temperature 1/β;  heated: β < 1

A bias makes some words likelier everywhere, whatever the context; a temperature knows no words at all. Both are traced
by strength from one set of the base's final hidden states, over the probes' answers and the base's neutral answers:

    KL(p‖p_s) = log E_p[e^{s·b}] − s·E_p[b],            −log p_s(y) = −log p(y) − s·b_y + log E_p[e^{s·b}]
    KL(p‖p_β) = (1 − β)·E_p[log p] + log Σ p^β,         −log p_β(y) = −β·log p(y) + log Σ p^β

Out: trait and neutral_kl by strength, as data; and for a stage `null_trait`, the trait shift of the better null at
exactly the stage's own neutral_kl (`ground.crossing`), and `above_null`, what the stage has above it: both paired by
probe, with the error of either neutral_kl in the interval, which the nulls share as so many comparisons.
Identity: strength 0 is the base; a stage that is a null has 0 above it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from steer_heal_love.evals import Subject
from steer_heal_love.ground import records
from steer_heal_love.ground.chat import answer_ids, prompt_ids
from steer_heal_love.ground.crossing import Frontier, cross
from steer_heal_love.ground.declared import Declared, declare
from steer_heal_love.ground.models import head
from steer_heal_love.ground.scoring import chunk, hidden_states
from steer_heal_love.ground.stats import bootstrap, subtract, summed
from steer_heal_love.nouns import Completion, Score, Stage, Tokens

STRENGTHS = {
    "bias": (0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0),
    "cooled": (1.05, 1.1, 1.2, 1.35, 1.5, 2.0, 3.0),
    "heated": (0.95, 0.9, 0.8, 0.7, 0.55, 0.4),
}
"""multiples of b; β, from the base at 1 on"""
ANSWERS = 24
"""of the base's own answers that b is read over"""
STEP = 0.01
"""share of a neutral_kl by which it is moved to see how the null's trait moves with it"""


@dataclass(frozen=True)
class Traced:
    """One null in rising strength: its items [k, n] of neutral_kl by neutral answer, of both answers' NLL by probe."""

    strengths: list[float]
    neutral_kl: list[list[float]]
    nll_pos: list[list[float]]
    nll_neg: list[list[float]]


Nulls = dict[str, Traced]
declare(Declared("above_null", 20, column=True, signed=True))


@torch.no_grad()
def bias(s: Subject, answers: list[Completion]) -> Float[Tensor, " v"]:
    """b, fp32, on the host: over the base's own `answers` to training prompts, the same tokens under either pole. The answers
    are taken at equal distances, since those to prompts that draw the trait out come before those to plain ones."""
    n = min(ANSWERS, len(answers))
    chosen = [answers[i * len(answers) // n] for i in range(n)]

    def mean(pole: str) -> Tensor:
        system = s.persona.system(pole)  # type: ignore[arg-type]
        tokens = [Tokens(prompt_ids(s.tok, c.prompt, system), c.tokens.answer) for c in chosen]
        states = torch.cat(hidden_states(s.model, tokens, batch_tokens=s.batch_tokens)).to(s.model.device)
        return sum(head(s.model, h).sum(0) for h in states.split(chunk(s.model))) / len(states)  # type: ignore[return-value]

    return (mean("pos") - mean("neg")).cpu()


def traced(s: Subject, answers: list[Completion]) -> Nulls:
    """Every null on this run's probes and neutral answers; the model pristine. Empty where either is missing."""
    if not s.probes or not s.neutral or not answers:
        return {}
    b = bias(s, answers).to(s.model.device)
    given = [Tokens(s.prompt(p.question), answer_ids(s.tok, a)) for p in s.probes for a in (p.pos, p.neg)]
    states = hidden_states(s.model, given, batch_tokens=s.batch_tokens)
    neutral = [t for _, t, _ in s.neutral], [h for _, _, h in s.neutral]
    out = {}
    for name, strengths in STRENGTHS.items():
        _, nll = kl_and_nll(s, given, states, name, strengths, b)
        kl, _ = kl_and_nll(s, *neutral, name, strengths, b)
        out[name] = Traced(list(strengths), kl.tolist(), nll[:, ::2].tolist(), nll[:, 1::2].tolist())
    return out


@torch.no_grad()
def kl_and_nll(
    s: Subject,
    tokens: list[Tokens],
    states: list[Float[Tensor, "_ d"]],
    name: str,
    strengths: tuple[float, ...],
    b: Float[Tensor, " v"],
) -> tuple[Float[np.ndarray, "k n"], Float[np.ndarray, "k n"]]:
    """KL(base‖null) and the null's NLL at each strength, a mean over tokens for each answer."""
    k = torch.tensor(strengths, device=s.model.device)
    targets = torch.cat([torch.tensor(t.answer) for t in tokens]).to(s.model.device)
    hidden, size = torch.cat(states).to(s.model.device), chunk(s.model)
    moved = by_bias if name == "bias" else by_temperature
    parts = []
    for h, y in zip(hidden.split(size), targets.split(size), strict=True):
        parts.append(torch.stack(moved(head(s.model, h).log_softmax(-1), y, k, b)).cpu())
    each = torch.cat(parts, 2).split([len(t.answer) for t in tokens], 2)
    kl, nll = torch.stack([part.mean(2) for part in each], 2).double().numpy()
    return kl, nll


def by_bias(
    log_p: Float[Tensor, "t v"], y: Int[Tensor, " t"], s: Float[Tensor, " k"], b: Float[Tensor, " v"]
) -> tuple[Float[Tensor, "k t"], Float[Tensor, "k t"]]:
    """KL and NLL per token with s·b added to the logits."""
    added, p = s[:, None] * b, log_p.exp()
    top = added.amax(1, keepdim=True)
    log_z = ((added - top).exp() @ p.T).log() + top
    return log_z - s[:, None] * (p @ b), log_z - added[:, y] - log_p.gather(1, y[:, None]).T


def by_temperature(
    log_p: Float[Tensor, "t v"], y: Int[Tensor, " t"], s: Float[Tensor, " k"], _b: Tensor
) -> tuple[Float[Tensor, "k t"], Float[Tensor, "k t"]]:
    """KL and NLL per token with the logits times s."""
    log_z = torch.stack([(beta * log_p).logsumexp(1) for beta in s])
    mean = (log_p.exp() * log_p).sum(1)
    return (1 - s[:, None]) * mean + log_z, log_z - s[:, None] * log_p.gather(1, y[:, None]).T


@dataclass(frozen=True)
class Reached:
    """A null at a stage's neutral_kl: its trait shift by probe, and by neutral answer what moves the mean of that."""

    name: str
    trait: Float[np.ndarray, " n"]
    moved: Float[np.ndarray, " m"]


def reached(name: str, null: Traced, kl: list[float], trait: list[float]) -> Reached | None:
    """A null at the mean of `kl`, a stage's neutral_kl by answer; `trait` is the base's. None where it doesn't get there."""
    shift = np.array(null.nll_neg) - np.array(null.nll_pos) - np.array(trait)
    frontier, at = Frontier(np.array(null.neutral_kl), shift), max(float(np.mean(kl)), 0.0)
    found, near, far = (cross(frontier, at * by, root=True) for by in (1, 1 - STEP, 1 + STEP))
    if found is None or near is None or far is None:
        return None
    slope = (far[0].mean() - near[0].mean()) / (2 * STEP * at) if at else 0.0
    return Reached(name, found[0], found[1] + slope * (np.array(kl) - at))


def beside(stage: Stage, base: Stage, nulls: Nulls, *, resamples: int) -> Stage:
    """The stage with `null_trait` and `above_null`; as it was where probes or neutral_kl weren't measured."""
    if not nulls or not {"trait", "neutral_kl"} <= stage.items.keys() & base.items.keys():
        return stage
    shift, kl = np.array(subtract(stage.items["trait"], base.items["trait"])), stage.items["neutral_kl"]
    found = [r for name, n in nulls.items() if (r := reached(name, n, kl, base.items["trait"]))]
    if not found:
        undefined = {"null_trait": Score.undefined(), "above_null": Score.undefined()}
        return replace(stage, scores=stage.scores | undefined)
    # A null that loses trait is no match for doing nothing.
    nothing = Reached("base", np.zeros(len(shift)), np.zeros(len(kl)))
    best = max([*found, nothing], key=lambda r: float(r.trait.mean()))
    above = shift - best.trait
    scores = {
        "null_trait": bootstrap(best.trait.tolist(), resamples=resamples),
        "above_null": summed([above[None], -best.moved[None]], resamples=resamples, comparisons=len(nulls)),
    }
    items = {"null_trait": best.trait.tolist(), "above_null": above.tolist()}
    return replace(stage, items=stage.items | items, scores=stage.scores | scores)


def save(nulls: Nulls, path: Path) -> None:
    records.write_json(path, {"schema": records.SCHEMA, "nulls": nulls})


def load(path: Path) -> Nulls:
    return {name: Traced(**n) for name, n in records.read_json(path)["nulls"].items()}
