"""The optimiser: AdamW on an adapter's factors, warmed up, then cooled down along a cosine."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from steer_heal_love.config import HealConfig
from steer_heal_love.ground import team
from steer_heal_love.ground.errors import Diverged
from steer_heal_love.ground.memory import fits
from steer_heal_love.ground.parts import band
from steer_heal_love.heal.examples import Example
from steer_heal_love.heal.lora import SpectralPenalty
from steer_heal_love.heal.losses import backward
from steer_heal_love.heal.student import Student
from steer_heal_love.heal.terms import in_order, terms
from steer_heal_love.nouns import Adapter

FEW = 8
"""steps of a heal under which none is captured: to capture one costs about three"""
WARMUP = 0.1
"""share of the steps over which the learning rate rises"""


Terms = Callable[[], dict[str, float]]
"""a step's terms by name, in nats a token; to ask for them is to wait for the GPU"""


def at_hand(terms: dict[str, float]) -> Terms:
    """Terms that nobody has to wait for."""
    return lambda: terms


class Trainer:
    """AdamW on an adapter's factors, warmed up and cooled down over `total` steps: a gradient, then an update.

    Both are taken with the adapter on. `weights` are the loss terms'; passes of `config` are halved until they fit.
    A step that is taken `ahead` has its terms read once the next step is on its way, so that a GPU doesn't wait for the host.
    """

    def __init__(
        self, model: PreTrainedModel, adapter: Adapter, config: HealConfig, total: int, *, round: int = 0
    ) -> None:
        self.model, self.adapter, self.config, self.round, self.done = model, adapter, config, round, 0
        self.parameters = [f.requires_grad_(True) for pair in adapter.factors.values() for f in pair]
        self.weights = {t.name: t.weight(config) for t in terms.values()}
        self.spectral = SpectralPenalty(adapter)
        self.optimiser = torch.optim.AdamW(
            self.parameters,
            lr=config.lr,
            weight_decay=config.weight_decay,
            betas=(0.9, 0.99),
            fused=all(f.is_cuda for f in self.parameters) or None,
        )
        self.student = Student(model, within=False)
        self.unread: tuple[dict[str, float], Terms] | None = None
        """the last step's row, and what its terms are"""
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, lambda s: shape(s, total))

    def gradient(self, kept: list[Example], anchor: list[Example]) -> Terms:
        """One step's gradient into the factors; the terms' means."""
        terms: dict[str, Tensor] = {}

        def add_up() -> None:
            self.optimiser.zero_grad()
            terms.clear()
            terms.update(backward(self.model, kept, anchor, self.config, self.weights, self.student))

        self.fitted(add_up)
        return team.add_up(self.parameters, terms, [t.name for t in in_order()])

    def fitted(self, add_up: Callable[[], None]) -> None:
        """Add up a gradient, again in passes of half as many items for as long as they don't fit in memory."""
        while not fits(add_up, self.config.micro_batch):
            self.student.captured = None
            self.config = replace(self.config, micro_batch=self.config.micro_batch // 2)

    def prepare(self, kept: list[Example], anchor: list[Example], steps: int) -> None:
        """Read these examples, in so many steps, from the lowest adapted layer on; captured, where that pays, in passes of
        half as many items for as long as they don't fit in memory. The adapter is on."""
        self.student = Student(self.model, band(self.model, self.config.layers)[0], self.parameters)
        if steps >= FEW:
            # Where not even one item fits captured, it is still tried as it is.
            with suppress(torch.OutOfMemoryError):
                self.fitted(lambda: self.student.capture(kept, anchor, self.sizes(kept, anchor)))

    def sizes(self, kept: list[Example], anchor: list[Example]) -> tuple[int, int]:
        """How many of either a pass takes at most, in this process."""
        c, here = self.config, lambda n, part: min(math.ceil(n / team.size()), len(part))
        both = here(c.batch, kept), here(c.anchor_batch, anchor)
        parts = math.ceil(max(both) / c.micro_batch)
        return math.ceil(both[0] / parts), math.ceil(both[1] / parts)

    def update(self, terms: Terms, *, ahead: bool = False) -> dict[str, float]:
        """One step along the gradient; the step's row. Raises `Diverged` when a term is not a number, before the step is
        taken. A row of a step taken `ahead` is completed with the next step, or by `read_terms`, which raise it then."""
        spectral: Callable[[], float] = lambda: 0.0
        if self.config.spectral:
            penalty = self.spectral(self.adapter)
            (self.config.spectral * penalty).backward()
            size = team.fetched(penalty.detach())
            spectral = lambda: size().item()
        row: dict[str, float] = {"step": self.done, "lr": self.schedule.get_last_lr()[0]}
        before, self.unread = self.unread, (row, lambda: {**terms(), "spectral": spectral()})
        if not ahead:
            self.read_terms()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self.schedule.step()
        row["lr"] = self.schedule.get_last_lr()[0]
        self.done += 1
        if before:
            self.complete(*before)
        return row

    def read_terms(self) -> None:
        """Complete the last row, if it is not. Raises `Diverged` when a term is not a number."""
        if self.unread:
            last, self.unread = self.unread, None
            self.complete(*last)

    def complete(self, row: dict[str, float], terms: Terms) -> None:
        """Put a step's terms into its row. Raises `Diverged` when one is not a number."""
        found = terms()
        row |= found
        if not all(math.isfinite(t) for t in found.values()):
            raise Diverged(
                f"round {self.round}, step {row['step']}: {found}; lower heal.lr (now {self.config.lr})."
            )

    def end(self) -> None:
        """Nothing is trained any more, and every row is complete. Raises `Diverged` as `update` does."""
        for f in self.parameters:
            f.requires_grad_(False)
        self.read_terms()


def shape(step: int, total: int) -> float:
    """Linear warm-up over the first `WARMUP` of the steps, then a cosine to zero."""
    rise = max(1, round(WARMUP * total))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))
