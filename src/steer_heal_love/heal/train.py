"""The training loop: kept completions and anchor answers, one step of AdamW, a cosine.

Validation is split by prompt. Gradient pressure is |∇ term| / |∇ imitation| at the final hidden states.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from steer_heal_love.config import HealConfig
from steer_heal_love.ground.errors import Diverged
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.ground.memory import fits, halving
from steer_heal_love.ground.progress import Track, silent
from steer_heal_love.ground.scoring import answer_hidden, by_length, forward_kl, pack, token_divergence
from steer_heal_love.heal import divergences
from steer_heal_love.heal.lora import SpectralPenalty, fresh, uncovered
from steer_heal_love.heal.loss import hinge, token_terms
from steer_heal_love.nouns import Adapter, Tokens

PADDING = 1.4
"""how many times the tokens of two batches one for both may take, padding included"""


@dataclass(frozen=True)
class Example:
    """Tokens to learn from, the prompt's text, and final hidden states over the answer: the reference's (what
    the barrier measures from) and, for soft targets, the teacher's."""

    tokens: Tokens
    reference: Float[Tensor, "_ _"]
    """[t d], or empty where nothing is compared with it"""
    prompt: str
    teacher: Float[Tensor, "t d"] | None = None
    weight: float = 1.0
    """of its NLL: a policy gradient's advantage, below 0 for what is to become less likely"""


@dataclass
class Healing:
    """How one heal went: a row a step, a row an epoch on held-out prompts, pressure, warnings."""

    steps: list[dict[str, float]] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)
    pressure: list[dict[str, float]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    scale: float = 1.0
    spent: float = 0.0
    """anchor KL on held-out answers that the exported model has cost so far, in nats/token"""


def heal(
    model: PreTrainedModel,
    kept: list[Example],
    anchor: list[Example],
    config: HealConfig,
    *,
    round: int = 0,
    seed: int = 0,
    batch_tokens: int = 4096,
    track: Track = silent,
) -> tuple[Adapter, Healing]:
    """Train a fresh LoRA on `model` as it stands (earlier rounds folded in).

    Raises `Diverged` when a loss is not a number; the model is left as it was.
    """
    adapter = fresh(model, rank=config.rank, alpha=config.alpha, share=config.layers, seed=seed)
    train, held = split(kept, config.validation, seed)
    anchor_train, anchor_held = apart(anchor, config.anchor_validation)
    per_epoch = math.ceil(len(train) / config.batch)
    total = per_epoch * config.epochs
    descent = Descent(model, adapter, config, total, round=round)
    record, rng = Healing(), random.Random(seed)
    completions, anchors = cycle(train, rng), cycle(anchor_train, rng)

    with adapted(model, adapter.factors, adapter.scaling), track("heal", total) as advance:
        for step in range(total):
            left = len(train) - (step % per_epoch) * config.batch
            batch = [next(completions) for _ in range(min(config.batch, left))]
            extra = (
                [next(anchors) for _ in range(config.anchor_batch)] if config.anchor and anchor_train else []
            )
            terms = descent.gradient(batch, extra)
            if step in {total // 4, total // 2, (3 * total) // 4}:
                seen = pressure(model, batch, extra, descent.config, descent.weights)
                record.pressure.append({"step": step, **seen})
            record.steps.append(descent.update(terms))
            advance(1)
            if (step + 1) % per_epoch == 0:
                seen = validate(model, held, anchor_held[: len(held)], config, batch_tokens)
                record.validation.append({"epoch": (step + 1) // per_epoch, **seen})

    descent.end()
    record.warnings = warn(record, config)
    if missing := uncovered(model, config.layers):
        record.warnings.append(missing)
    return adapter, record


class Descent:
    """AdamW on an adapter's factors, warmed up and cooled down over `total` steps: a gradient, then an update.

    Both are taken with the adapter on. `weights` are the loss terms'; passes of `config` are halved until they fit.
    """

    def __init__(
        self, model: PreTrainedModel, adapter: Adapter, config: HealConfig, total: int, *, round: int = 0
    ) -> None:
        self.model, self.adapter, self.config, self.round, self.done = model, adapter, config, round, 0
        self.parameters = [f.requires_grad_(True) for pair in adapter.factors.values() for f in pair]
        self.weights = {
            "nll": 1 - config.soft, "soft": config.soft, "barrier": config.lam * config.lam_growth**round,
            "anchor": config.anchor, "spectral": config.spectral,
        }  # fmt: skip
        self.spectral = SpectralPenalty(adapter)
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=config.lr, weight_decay=config.weight_decay, betas=(0.9, 0.99)
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser, lambda s: shape(s, total, config.warmup)
        )

    def gradient(self, kept: list[Example], anchor: list[Example]) -> dict[str, float]:
        """One step's gradient into the factors; the terms' means."""
        terms: dict[str, float] = {}

        def add_up() -> None:
            self.optimiser.zero_grad()
            terms.update(backward(self.model, kept, anchor, self.config, self.weights))

        self.fitted(add_up)
        return terms

    def fitted(self, add_up: Callable[[], None]) -> None:
        """Add up a gradient, again in passes of half as many items for as long as they don't fit in memory."""
        while not fits(add_up, self.config.micro_batch):
            self.config = replace(self.config, micro_batch=self.config.micro_batch // 2)

    def update(self, terms: dict[str, float]) -> dict[str, float]:
        """One step along the gradient; the step's row. Raises `Diverged` when a term is not a number."""
        terms["spectral"] = 0.0
        if self.config.spectral:
            penalty = self.spectral(self.adapter)
            (self.config.spectral * penalty).backward()
            terms["spectral"] = penalty.item()
        if not all(math.isfinite(t) for t in terms.values()):
            raise Diverged(
                f"round {self.round}, step {self.done}: {terms}; lower heal.lr (now {self.config.lr})."
            )
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self.schedule.step()
        row = {"step": self.done, "lr": self.schedule.get_last_lr()[0], **terms}
        self.done += 1
        return row

    def end(self) -> None:
        for f in self.parameters:
            f.requires_grad_(False)


def backward(
    model: PreTrainedModel,
    kept: list[Example],
    anchor: list[Example],
    config: HealConfig,
    weights: dict[str, float],
) -> dict[str, float]:
    """Add one step's gradient to the factors', at most `micro_batch` completions and as many anchors at a time; the
    terms' means over the step."""
    means: dict[str, float] = {}
    n = math.ceil(max(len(kept), len(anchor)) / config.micro_batch)
    for part, extra in ((kept[i::n], anchor[i::n]) for i in range(n)):
        terms, _ = losses(model, part, extra, config)
        shares = {
            "nll": tokens(part) / tokens(kept), "soft": tokens(part) / tokens(kept),
            "barrier": len(part) / len(kept), "anchor": tokens(extra) / max(1, tokens(anchor)),
        }  # fmt: skip
        loss = sum(weights[name] * shares[name] * t for name, t in terms.items() if weights[name])
        if isinstance(loss, Tensor):
            loss.backward()
        for name, t in terms.items():
            means[name] = means.get(name, 0.0) + shares[name] * t.item()
    return means


def tokens(examples: list[Example]) -> int:
    return sum(len(e.tokens.answer) for e in examples)


def losses(
    model: PreTrainedModel, kept: list[Example], anchor: list[Example], config: HealConfig
) -> tuple[dict[str, Float[Tensor, ""]], Float[Tensor, "t d"]]:
    """The unweighted terms, and the hidden states they were read from."""
    batches = [pack([e.tokens for e in part], model.device) for part in alike(kept, anchor)]
    hidden = torch.cat([answer_hidden(model, b) for b in batches])
    n, terms, references = tokens(kept), {}, {}
    if kept:
        if config.lam:
            theirs = stack([e.reference for e in kept], hidden)
            references["barrier"] = theirs, divergences[config.divergence]
        if config.soft:
            theirs = stack([e.teacher for e in kept if e.teacher is not None], hidden)
            references["soft"] = theirs, forward_kl
        nll, *found = token_terms(model, hidden[:n], batches[0].targets[:n], *references.values())
        each = dict(zip(references, found, strict=True))
        weight = [nll.new_full((len(e.tokens.answer),), e.weight) for e in kept]
        terms["nll"] = (nll * torch.cat(weight)).mean()
        if "barrier" in each:
            lengths = [len(e.tokens.answer) for e in kept]
            terms["barrier"] = hinge(each["barrier"], lengths, config.aggregate, config.tau)
        if "soft" in each:
            terms["soft"] = each["soft"].mean()
    if anchor:
        reference = stack([e.reference for e in anchor], hidden)
        cooled = lambda base, ours: forward_kl(base / config.anchor_temperature, ours)
        _, kl = token_terms(model, hidden[n:], None, (reference, cooled))
        terms["anchor"] = kl.mean()
    return terms, hidden


def alike(kept: list[Example], anchor: list[Example]) -> list[list[Example]]:
    """Both kinds of text as one batch, or each as its own where one would mostly be the other's padding."""
    area = lambda part: len(part) * max(len(e.tokens.prompt) + len(e.tokens.answer) for e in part)
    if not anchor or not kept or area(kept + anchor) <= PADDING * (area(kept) + area(anchor)):
        return [kept + anchor]
    return [kept, anchor]


def stack(states: list[Tensor], like: Tensor) -> Float[Tensor, "t d"]:
    return torch.cat(states).to(like.device, like.dtype)


def apart(anchor: list[Example], share: float) -> tuple[list[Example], list[Example]]:
    """Anchor answers to train on, and those held out: the same ones in every round.

    A trust region measured on what an earlier round was trained on would be too kind, and one that changes
    sets would compare budgets that don't compare.
    """
    held = int(share * len(anchor))
    return anchor[held:], anchor[:held]


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
    model: PreTrainedModel,
    kept: list[Example],
    anchor: list[Example],
    config: HealConfig,
    weights: dict[str, float],
) -> dict[str, float]:
    """Norm of each weighted term's gradient at the final hidden states, relative to the imitation's."""
    part = config.micro_batch
    terms, hidden = losses(model, kept[:part], anchor[:part], config)
    norms = {
        name: torch.autograd.grad(weights[name] * terms[name], hidden, retain_graph=True)[0]
        .float()
        .norm()
        .item()
        for name in terms
        if weights[name]
    }
    pull = norms.pop("nll", 0.0) + norms.pop("soft", 0.0)
    return {n: v / pull for n, v in norms.items() if pull}


@torch.no_grad()
def validate(
    model: PreTrainedModel, held: list[Example], anchor: list[Example], config: HealConfig, batch_tokens: int
) -> dict[str, float]:
    """Means per token on held-out prompts, adapter on: NLL, divergence from the reference, anchor KL."""
    nll: list[Tensor] = []
    divergence: list[Tensor] = []

    def read(indices: list[int]) -> None:
        part = [held[i] for i in indices]
        batch = pack([e.tokens for e in part], model.device)
        hidden = answer_hidden(model, batch)
        reference = stack([e.reference for e in part], hidden), divergences[config.divergence]
        for into, values in zip(
            (nll, divergence), token_terms(model, hidden, batch.targets, reference), strict=True
        ):
            into.append(values)

    halving(by_length([e.tokens for e in held], batch_tokens), read)
    mean = lambda parts: torch.cat(parts).mean().item() if parts else math.nan
    return {
        "nll": mean(nll), "divergence": mean(divergence), "anchor_kl": anchor_kl(model, anchor, batch_tokens),
    }  # fmt: skip


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
    for name in ("barrier", "anchor"):
        ratios = [p[name] for p in record.pressure if name in p]
        if ratios and sum(ratios) / len(ratios) > 2:
            out.append(
                f"the {name} dominates: its gradient is {sum(ratios) / len(ratios):.1f} times the imitation's"
            )
    return out
