"""What a heal learns from: kept completions and anchor answers, what is held out of each, and in what order they come."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, empty, tensor
from transformers import PreTrainedModel

from steer_heal_love.config import HealConfig
from steer_heal_love.ground.memory import free_bytes
from steer_heal_love.ground.scoring import hidden_states, size
from steer_heal_love.nouns import Completion, Tokens

PADDING = 1.4
"""how many times the tokens of two batches one for both may take, padding included"""
NOTHING = empty(0, 0)
"""the reference of an example that isn't compared with one"""


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


def unread(completions: list[Completion]) -> list[Example]:
    """Completions to learn from, before any model's states over them were read."""
    return [Example(c.tokens, NOTHING, c.prompt) for c in completions]


def referred(
    model: PreTrainedModel, kept: list[Example], config: HealConfig, *, seed: int, batch_tokens: int
) -> list[Example]:
    """With the model's hidden states as it stands, for those examples that the heal will compare with them: all where
    the barrier is on, else those held out for the curve."""
    _, held = split(kept, config.validation, seed)
    asked_of = {e.prompt for e in held}
    wanted = [i for i, e in enumerate(kept) if config.lam or e.prompt in asked_of]
    states = hidden_states(model, [kept[i].tokens for i in wanted], batch_tokens=batch_tokens)
    found = dict(zip(wanted, states, strict=True))
    return [replace(e, reference=found.get(i, NOTHING)) for i, e in enumerate(kept)]


def split_anchor(anchor: list[Example], share: float) -> tuple[list[Example], list[Example]]:
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


def alike(kept: list[Example], anchor: list[Example]) -> list[list[Example]]:
    """Both kinds of text as one batch, or each as its own where one would mostly be the other's padding."""
    area = lambda part: len(part) * max(size(e.tokens) for e in part)
    if not anchor or not kept or area(kept + anchor) <= PADDING * (area(kept) + area(anchor)):
        return [kept + anchor]
    return [kept, anchor]


def tokens(examples: list[Example]) -> int:
    return sum(len(e.tokens.answer) for e in examples)


def answer_ids(examples: list[Example]) -> Int[Tensor, " t"]:
    """The answers' tokens, one answer after another."""
    return tensor([i for e in examples for i in e.tokens.answer])


def near(examples: list[Example], device: torch.device) -> list[Example]:
    """With their states on a GPU, where those take less than a tenth of what it has free: they are read every epoch."""
    given = [s for e in examples for s in (e.reference, e.teacher) if s is not None]
    if device.type != "cuda" or 10 * sum(s.numel() * s.element_size() for s in given) > free_bytes(device):
        return examples
    there = lambda s: None if s is None else s.to(device)
    return [replace(e, reference=e.reference.to(device), teacher=there(e.teacher)) for e in examples]
