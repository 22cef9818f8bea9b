"""On-policy self-distillation: the student writes, and at each token moves toward what its own base would say there with
a system prompt (`gkd_prompted`) or steered (`gkd_steered`).

    L = mean_y mean_t JSD_β(teacher ‖ student),   y ~ student,   no gradient through the sampling
    JSD_β(P‖Q) = β·KL(P ‖ M) + (1−β)·KL(Q ‖ M),   M = β·P + (1−β)·Q

Source: On-policy distillation (GKD), Agarwal et al. 2023, arXiv 2306.13649. It compares several β and λ by task and names
no one default (by others' summaries; its own text was not checked). TRL's trainer of that name has β = 0.5, λ = 0.5 and
temperature 0.9 (trl/trainer/gkd_config.py). A model told more as its own teacher, on the student's text alone, is
Self-Distillation Enables Continual Learning (SDFT), Shenfeld et al. 2026, arXiv 2601.19897; its authors' README says that the
paper's results come from the forward KL per token.
Taken: β = 0.5, and the student's text alone (λ = 1) at temperature 1.
Changed: the teacher is the student's own base and no larger model, frozen, told a pole or steered and shown no
demonstration. As many steps and completions a step as the loop's rounds have together, and every method's adapter, AdamW and
learning rate. The steered teacher has the dose that the healed round's walk found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from steer_heal_love.compare.bench import Bench
from steer_heal_love.compare.method import Cell, method
from steer_heal_love.compare.own_steps import WithAdapter, own_steps
from steer_heal_love.compare.scaled import KNOB, scaled
from steer_heal_love.compare.stepwise import Pace
from steer_heal_love.generate import generate
from steer_heal_love.ground import purposes
from steer_heal_love.ground.chat import prompt_ids
from steer_heal_love.ground.progress import silent
from steer_heal_love.ground.scoring import answer_hidden, pack
from steer_heal_love.heal.loss import token_terms
from steer_heal_love.nouns import Adapter, Completion, Tokens
from steer_heal_love.persona import training_prompts

BETA = 0.5


@dataclass(frozen=True)
class Distilled:
    """The student's own answer, and the teacher's final hidden states over it."""

    tokens: Tokens
    teacher: Float[Tensor, "t d"]


Teacher = Callable[[list[Completion]], list[Tensor]]
"""final hidden states over the answers, the base as the teacher"""


@method("gkd_prompted", knob=KNOB, kind="healed")
def gkd_prompted(bench: Bench) -> Iterator[Cell]:
    r = bench.run

    def teacher(made: list[Completion]) -> list[Tensor]:
        ask = lambda c: tuple(prompt_ids(r.tok, c.prompt, r.persona.system("pos")))
        return bench.states([Tokens(ask(c), c.tokens.answer) for c in made])

    yield from scaled(bench, distilled(bench, teacher))


@method("gkd_steered", knob=KNOB, kind="healed")
def gkd_steered(bench: Bench) -> Iterator[Cell]:
    vector, dose = bench.vector(), bench.walked()

    def teacher(made: list[Completion]) -> list[Tensor]:
        steering: AbstractContextManager[Any] = vector(bench.run.model, dose)
        with steering:
            return bench.states([c.tokens for c in made])

    yield from scaled(bench, distilled(bench, teacher))


def distilled(bench: Bench, teacher: Teacher) -> Adapter:
    """An adapter that learned from `teacher` on what it wrote itself."""
    r, pace = bench.run, Pace.of(bench.run.config)
    drawn = replace(r.config.generate, temperature=1.0, min_p=0.0)

    def items(step: int, with_adapter: WithAdapter) -> list[Distilled]:
        seed = r.seed(purposes.ON_POLICY, step)
        prompts = training_prompts(r.persona, pace.completions, seed=seed)
        with with_adapter():
            made = generate(r.model, r.tok, prompts, [0.0], config=drawn, seed=seed, track=silent)
        return [Distilled(c.tokens, h) for c, h in zip(made, teacher(made), strict=True)]

    return own_steps(bench, "adapter", pace.steps, items, lambda part: losses(r.model, part))


def losses(model: PreTrainedModel, part: list[Distilled]) -> Float[Tensor, " n"]:
    """Each answer's mean over tokens of the divergence, in nats."""
    batch = pack([t.tokens for t in part], model.device)
    hidden = answer_hidden(model, batch)
    theirs = torch.cat([t.teacher for t in part]).to(hidden)
    _, divergence = token_terms(model, hidden, None, (theirs, jsd))
    return torch.stack([d.mean() for d in divergence.split(batch.lengths)])


def jsd(
    teacher: Float[Tensor, "t v"], student: Float[Tensor, "t v"], beta: float = BETA
) -> Float[Tensor, " t"]:
    """Generalised Jensen–Shannon divergence per token in nats, from logits; 0 where both are alike."""
    p, q = teacher.log_softmax(-1), student.log_softmax(-1)
    m = torch.logaddexp(p + math.log(beta), q + math.log1p(-beta))
    return (beta * p.exp() * (p - m) + (1 - beta) * q.exp() * (q - m)).sum(-1)
