"""What a heal says of itself: gradient ratio, the held-out curve, and warnings.

Gradient ratio is |∇ term| / |∇ imitation| at the final hidden states, each term weighted as it is in the loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import attrgetter

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from steer_heal_love.config import HealConfig
from steer_heal_love.ground import team
from steer_heal_love.ground.divergence import forward_kl
from steer_heal_love.ground.memory import halving
from steer_heal_love.ground.scoring import sorted_by_length, token_divergence
from steer_heal_love.heal import Divergence, divergences, widening
from steer_heal_love.heal.examples import Example, answer_ids, tokens
from steer_heal_love.heal.loss import token_terms
from steer_heal_love.heal.losses import losses, parts_of, share, stack
from steer_heal_love.heal.student import Student
from steer_heal_love.heal.terms import in_order, terms
from steer_heal_love.nouns import DOMINATES, Healing


def gradient_ratios(
    model: PreTrainedModel,
    kept: list[Example],
    anchor: list[Example],
    config: HealConfig,
    weights: dict[str, float],
    student: Student | None = None,
) -> dict[str, float]:
    """Norm of each weighted term's gradient at the final hidden states of one pass, relative to the imitation's.

    In a team each process reads its share of the pass, and the squares are summed.
    """
    kept, anchor = kept[: config.micro_batch], anchor[: config.micro_batch]
    squares: dict[str, float] = {}
    for mine, extra in parts_of(kept, anchor, config.micro_batch):
        found, hidden = losses(model, mine, extra, config, student)
        for name, value in found.items():
            weight = weights[name] * share(terms[name], (mine, kept), (extra, anchor))
            if weight:
                gradient = torch.autograd.grad(weight * value, hidden, retain_graph=True)[0]
                squares[name] = gradient.float().square().sum().item()
    squares = team.summed(squares, [t.name for t in in_order()])
    norms = {name: math.sqrt(value) for name, value in squares.items()}
    imitation = sum(norm for name, norm in norms.items() if terms[name].imitates)
    return {name: norm / imitation for name, norm in norms.items() if imitation and not terms[name].imitates}


Compared = tuple[Callable[[Example], Tensor], Divergence]
"""whose final hidden states over an example's answer it is compared with, and by what"""
REFERENCE, TEACHER = attrgetter("reference"), attrgetter("teacher")


@torch.no_grad()
def validate(
    model: PreTrainedModel,
    held: list[Example],
    anchor: list[Example],
    config: HealConfig,
    batch_tokens: int,
    student: Student | None = None,
) -> dict[str, float]:
    """Means per token on held-out prompts, adapter on: NLL, divergence from the reference, anchor KL; `soft`, the divergence
    from the teacher, where there is one."""
    kept, away = readings(
        student or Student(model, within=False),
        held,
        anchor,
        widening(divergences[config.divergence]),
        batch_tokens,
    )
    names = ("nll", "divergence", "soft")[: len(kept)]
    return dict(zip(names, kept.mean(1).tolist(), strict=True)) | {"anchor_kl": away[1].mean().item()}


def readings(
    student: Student, held: list[Example], anchor: list[Example], divergence: Divergence, batch_tokens: int
) -> tuple[Float[Tensor, "k t"], Float[Tensor, "2 u"]]:
    """NLL and divergence from the reference of every answer token, of either kind of text, in nats; NaN without any.
    The anchors' divergence is KL(base‖student). k is 3 where all held-out texts have a teacher, with KL(teacher‖student) last."""
    examples = held + anchor
    out: list[Tensor] = [torch.empty(2, 0)] * len(examples)
    taught = bool(held) and all(e.teacher is not None for e in held)
    of_kept: list[Compared] = [(REFERENCE, divergence)] + [(TEACHER, forward_kl)] * taught
    of_anchors: list[Compared] = [(REFERENCE, forward_kl)]

    def measure(indices: list[int]) -> None:
        kinds = [i for i in indices if i < len(held)], [i for i in indices if i >= len(held)]
        parts = [[examples[i] for i in kind] for kind in kinds]
        hidden = student.answers(*parts).split([tokens(part) for part in parts])
        for kind, part, ours, wanted in zip(kinds, parts, hidden, (of_kept, of_anchors), strict=True):
            if part:
                theirs = [(stack([states(e) for e in part], ours), apart) for states, apart in wanted]
                found = torch.stack(
                    token_terms(student.model, ours, answer_ids(part).to(ours.device), *theirs)
                )
                for i, values in zip(kind, found.split([len(e.tokens.answer) for e in part], 1), strict=True):
                    out[i] = values

    rows = [e.tokens for e in examples]
    order = sorted_by_length(rows)
    with team.sharing(order) as mine:
        halving(student.batches(rows, batch_tokens, mine), measure)
    whole = team.filled(out, mine)
    split = ([i for i in order if i < len(held)], [i for i in order if i >= len(held)])
    kept, away = (torch.cat([whole[i] for i in kind], 1) if kind else NONE for kind in split)
    return kept, away


NONE = torch.full((2, 1), math.nan)


def anchor_kl(model: PreTrainedModel, anchor: list[Example], batch_tokens: int) -> float:
    """KL(base‖student) per token on anchor answers; NaN without any."""
    if not anchor:
        return math.nan
    parts = token_divergence(
        model, [e.tokens for e in anchor], [e.reference for e in anchor], batch_tokens=batch_tokens
    )
    return torch.cat(parts).mean().item()


def warn(record: Healing, config: HealConfig) -> list[str]:
    """What the curves say is wrong with the settings."""
    out = []
    if config.lam and not any(s["barrier"] > 0 for s in record.steps):
        out.append(f"the barrier never fired: divergence stayed under heal.tau = {config.tau}")
    for t in in_order():
        if not t.imitates and (gradient_ratio := record.gradient_ratio(t.name)) > DOMINATES:
            out.append(f"the {t.name} dominates: its gradient is {gradient_ratio:.1f} times the imitation's")
    return out
