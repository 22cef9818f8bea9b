"""The training loop: kept completions and anchor answers in one forward, one step of AdamW, a cosine.

Validation is split by prompt. Gradient pressure is |∇ term| / |∇ imitation| at the final hidden states.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from steer_heal_love.config import HealConfig
from steer_heal_love.ground.errors import Diverged
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.ground.progress import Track, silent
from steer_heal_love.ground.scoring import answer_hidden, forward_kl, pack, token_divergence, token_nll
from steer_heal_love.heal import divergences
from steer_heal_love.heal.lora import SpectralPenalty, fresh
from steer_heal_love.heal.loss import hinge, token_terms
from steer_heal_love.nouns import Adapter, Tokens

BISECTIONS, CLOSE = 5, 0.9


@dataclass(frozen=True)
class Example:
    """Tokens to learn from, the prompt's text, and final hidden states over the answer: the reference's (what
    the barrier measures from) and, for soft targets, the steered teacher's."""

    tokens: Tokens
    reference: Float[Tensor, "t d"]
    prompt: str
    teacher: Float[Tensor, "t d"] | None = None


@dataclass
class Healing:
    """How one heal went: a row a step, a row an epoch on held-out prompts, pressure, warnings."""

    steps: list[dict[str, float]] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)
    pressure: list[dict[str, float]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    scale: float = 1.0


def heal(
    model: PreTrainedModel,
    kept: list[Example],
    anchor: list[Example],
    config: HealConfig,
    *,
    round: int = 0,
    rounds: int = 1,
    seed: int = 0,
    batch_tokens: int = 4096,
    track: Track = silent,
) -> tuple[Adapter, Healing]:
    """Train a fresh LoRA on `model` as it stands (earlier rounds folded in).

    Raises `Diverged` when a loss is not a number; the model is left as it was.
    """
    adapter = fresh(model, rank=config.rank, alpha=config.alpha, share=config.layers, seed=seed)
    parameters = [f.requires_grad_(True) for pair in adapter.factors.values() for f in pair]
    train, held = split(kept, config.validation, seed)
    # The same anchor answers in every round: a trust region measured on what an earlier round was trained on
    # would be too kind, and one that changes sets would compare budgets that don't compare.
    held_out = int(config.anchor_validation * len(anchor))
    anchor_train, anchor_held = anchor[held_out:], anchor[:held_out]
    lam = config.lam * config.lam_growth**round
    record, spectral = Healing(), SpectralPenalty(adapter)
    rng = random.Random(seed)

    per_epoch = math.ceil(len(train) / config.batch)
    total = per_epoch * config.epochs
    optimiser = torch.optim.AdamW(
        parameters, lr=config.lr, weight_decay=config.weight_decay, betas=(0.9, 0.99)
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda s: shape(s, total, config.warmup))
    anchors = cycle(anchor_train, rng)

    with adapted(model, adapter.factors, adapter.scaling), track("heal", total) as advance:
        queue: list[Example] = []
        for step in range(total):
            queue = queue or rng.sample(train, len(train))
            batch, queue = queue[: config.batch], queue[config.batch :]
            extra = (
                [next(anchors) for _ in range(config.anchor_batch)] if config.anchor and anchor_train else []
            )
            terms, hidden = losses(model, batch, extra, config)
            terms["spectral"] = spectral(adapter) if config.spectral else torch.zeros(())
            weights = {
                "nll": 1 - config.soft,
                "soft": config.soft,
                "barrier": lam,
                "anchor": config.anchor,
                "spectral": config.spectral,
            }
            loss = sum(weights[n] * t for n, t in terms.items() if weights[n])
            assert isinstance(loss, Tensor)
            if not torch.isfinite(loss):
                raise Diverged(
                    f"round {round}, step {step}: the loss is {loss.item()}; lower heal.lr (now {config.lr})."
                )
            if step in {total // 4, total // 2, (3 * total) // 4}:
                record.pressure.append(pressure(terms, weights, hidden, step))
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            schedule.step()
            record.steps.append(
                {"step": step, "lr": schedule.get_last_lr()[0], **{n: t.item() for n, t in terms.items()}}
            )
            advance(1)
            if (step + 1) % per_epoch == 0:
                seen = validate(model, held, anchor_held, config, batch_tokens)
                record.validation.append({"epoch": (step + 1) // per_epoch, **seen})

    for f in parameters:
        f.requires_grad_(False)
    if config.budget > 0 and anchor_held:
        record.scale = shrink(model, adapter, anchor_held, config.budget * (round + 1) / rounds, batch_tokens)
        adapter = adapter.scaled(record.scale)
    record.warnings = warn(record, lam, config)
    return adapter, record


def losses(
    model: PreTrainedModel, kept: list[Example], anchor: list[Example], config: HealConfig
) -> tuple[dict[str, Float[Tensor, ""]], Float[Tensor, "t d"]]:
    """The unweighted terms of one step, and the hidden states they were read from: one forward for both."""
    batch = pack([e.tokens for e in kept + anchor], model.device)
    hidden = answer_hidden(model, batch)
    lengths = batch.lengths[: len(kept)]
    n = sum(lengths)
    reference = stack(kept, hidden) if config.lam else None
    nll, divergence = token_terms(
        model, hidden[:n], batch.targets[:n], reference, divergences[config.divergence]
    )
    terms = {"nll": nll.mean(), "barrier": hinge(divergence, lengths, config.aggregate, config.tau)}
    if config.soft:
        teachers = torch.cat([e.teacher for e in kept if e.teacher is not None]).to(hidden)
        _, kl = token_terms(model, hidden[:n], None, teachers, forward_kl)
        terms["soft"] = kl.mean()
    if anchor:
        _, kl = token_terms(model, hidden[n:], None, stack(anchor, hidden), forward_kl)
        terms["anchor"] = kl.mean()
    return terms, hidden


def stack(examples: list[Example], like: Tensor) -> Float[Tensor, "t d"]:
    return torch.cat([e.reference for e in examples]).to(like.device, like.dtype)


def split(examples: list[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Train and held-out examples; a prompt is wholly on one side."""
    prompts = sorted({e.prompt for e in examples})
    random.Random(seed).shuffle(prompts)
    out = set(prompts[: round(share * len(prompts))])
    return [e for e in examples if e.prompt not in out], [e for e in examples if e.prompt in out]


def cycle(examples: list[Example], rng: random.Random) -> Iterator[Example]:
    while examples:
        yield from rng.sample(examples, len(examples))


def shape(step: int, total: int, warmup: float) -> float:
    """Linear warm-up over a share of the steps, then a cosine to zero."""
    rise = max(1, round(warmup * total))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))


def pressure(
    terms: dict[str, Tensor], weights: dict[str, float], hidden: Tensor, step: int
) -> dict[str, float]:
    """Norm of each weighted term's gradient at the final hidden states, relative to the imitation's."""
    norms = {
        name: torch.autograd.grad(weights[name] * terms[name], hidden, retain_graph=True)[0]
        .float()
        .norm()
        .item()
        for name in ("nll", "soft", "barrier", "anchor")
        if name in terms and weights[name]
    }
    pull = norms.pop("nll", 0.0) + norms.pop("soft", 0.0)
    return {"step": step, **{n: v / pull for n, v in norms.items() if pull}}


def validate(
    model: PreTrainedModel, held: list[Example], anchor: list[Example], config: HealConfig, batch_tokens: int
) -> dict[str, float]:
    """Means per token on held-out prompts, adapter on: NLL, divergence from the reference, anchor KL."""
    mean = lambda parts: torch.cat(parts).mean().item() if parts else math.nan
    tokens, refs = [e.tokens for e in held], [e.reference for e in held]
    return {
        "nll": mean(token_nll(model, tokens, batch_tokens=batch_tokens)),
        "divergence": mean(token_divergence(
            model, tokens, refs, divergence=divergences[config.divergence], batch_tokens=batch_tokens)),
        "anchor_kl": anchor_kl(model, anchor, batch_tokens),
    }  # fmt: skip


def anchor_kl(model: PreTrainedModel, anchor: list[Example], batch_tokens: int) -> float:
    """KL(base‖student) per token on anchor answers; NaN without any."""
    if not anchor:
        return math.nan
    parts = token_divergence(
        model, [e.tokens for e in anchor], [e.reference for e in anchor], batch_tokens=batch_tokens
    )
    return torch.cat(parts).mean().item()


def shrink(
    model: PreTrainedModel, adapter: Adapter, anchor: list[Example], budget: float, batch_tokens: int
) -> float:
    """Trust region: the largest scale of the update, at most 1, whose held-out anchor KL is inside the budget.

    Bisected, because KL grows with the scale from what the earlier rounds already cost, so no power law fits;
    ends early within a tenth of the budget. 0 when even a sliver costs more.
    """

    def cost(scale: float) -> float:
        with adapted(model, adapter.factors, adapter.scaling * scale):
            return anchor_kl(model, anchor, batch_tokens)

    if cost(1.0) <= budget:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        found = cost(middle)
        if found > budget:
            high = middle
            continue
        low = middle
        if found >= CLOSE * budget:
            break
    return low


def warn(record: Healing, lam: float, config: HealConfig) -> list[str]:
    """What the curves say is wrong with the settings."""
    out = []
    fired = sum(s["barrier"] > 0 for s in record.steps) / max(1, len(record.steps))
    if lam and fired == 0:
        out.append(f"the barrier never fired: divergence stayed under heal.tau = {config.tau}")
    for name in ("barrier", "anchor"):
        ratios = [p[name] for p in record.pressure if name in p]
        if ratios and sum(ratios) / len(ratios) > 2:
            out.append(
                f"the {name} dominates: its gradient is {sum(ratios) / len(ratios):.1f} times the imitation's"
            )
    return out
