"""What a heal says of itself: gradient ratio, the held-out curve, and warnings.

Gradient ratio is |∇ term| / |∇ imitation| at the final hidden states, each term weighted as it is in the loss.
"""

from __future__ import annotations

import math
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
from steer_heal_love.heal import divergences, widening
from steer_heal_love.heal.examples import Example, answer_ids, tokens
from steer_heal_love.heal.loss import token_terms
from steer_heal_love.heal.losses import losses, parts_of, share, stack
from steer_heal_love.heal.student import Student
from steer_heal_love.heal.terms import Comparison, in_order, terms
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


REFERENCE = attrgetter("reference")


@torch.no_grad()
def validate(
    model: PreTrainedModel,
    held: list[Example],
    anchor: list[Example],
    config: HealConfig,
    batch_tokens: int,
    student: Student | None = None,
) -> dict[str, float]:
    """Means per token on held-out prompts, adapter on: NLL, divergence from the reference, anchor KL; and by its name what
    each term that imitates compares, such as `soft` the divergence from the teacher, where all held-out texts have it."""
    wanted = {"divergence": (REFERENCE, widening(divergences[config.divergence]))} | taught(held, config)
    reads = student or Student(model, within=False)
    kept, away = readings(reads, held, anchor, list(wanted.values()), batch_tokens)
    means = dict(zip(("nll", *wanted), kept.mean(1).tolist(), strict=True))
    return means | {"anchor_kl": away[1].mean().item()}


def taught(held: list[Example], config: HealConfig) -> dict[str, Comparison]:
    """What the terms that imitate compare, by their names, where all of these texts have it."""
    found = {t.name: c for t in in_order() if t.imitates and (c := t.comparison(config))}
    has = lambda states: bool(held) and all(states(e) is not None for e in held)
    return {name: (states, apart) for name, (states, apart) in found.items() if has(states)}


def readings(
    student: Student, held: list[Example], anchor: list[Example], of_held: list[Comparison], batch_tokens: int
) -> tuple[Float[Tensor, "k t"], Float[Tensor, "2 u"]]:
    """NLL of every answer token, of either kind of text, in nats, then what it is compared by; NaN without any text.
    The anchors' divergence is KL(base‖student)."""
    examples = held + anchor
    out: list[Tensor] = [torch.empty(2, 0)] * len(examples)
    of_anchors: list[Comparison] = [(REFERENCE, forward_kl)]

    def measure(indices: list[int]) -> None:
        kinds = [i for i in indices if i < len(held)], [i for i in indices if i >= len(held)]
        parts = [[examples[i] for i in kind] for kind in kinds]
        hidden = student.answers(*parts).split([tokens(part) for part in parts])
        for kind, part, ours, wanted in zip(kinds, parts, hidden, (of_held, of_anchors), strict=True):
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
