"""Per-token log-probabilities and divergences of given tokens, batched by length.

In: sequences (prompt ids, answer ids). Out: one fp32 tensor a sequence, over its answer tokens, in nats.
Logits exist only for one chunk of tokens at a time, never for batch × sequence × vocabulary. What all the
prompts of a batch begin with (template, system prompt) is read once and its cache shared.
Invariant: a sequence's values don't depend on the batch it travelled in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from steer_heal_love.ground.models import body, head
from steer_heal_love.nouns import Tokens

CHUNK = 128


@dataclass(frozen=True)
class Batch:
    """Right-padded ids, and where the answers' predictions sit in the flattened [b·s] hidden states."""

    ids: Int[Tensor, "b s"]
    mask: Int[Tensor, "b s"]
    where: Int[Tensor, " t"]
    targets: Int[Tensor, " t"]
    lengths: list[int]


def pack(sequences: list[Tokens], device: torch.device | str) -> Batch:
    """Right-pad a batch; `where` points at the position *before* each answer token."""
    width = max(len(s.prompt) + len(s.answer) for s in sequences)
    ids = torch.zeros(len(sequences), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    where, targets = [], []
    for row, s in enumerate(sequences):
        start, end = len(s.prompt), len(s.prompt) + len(s.answer)
        ids[row, :end] = torch.tensor(s.prompt + s.answer)
        mask[row, :end] = 1
        where.append(torch.arange(start - 1, end - 1) + row * width)
        targets.append(ids[row, start:end])
    return Batch(
        ids.to(device), mask.to(device), torch.cat(where).to(device), torch.cat(targets).to(device),
        [len(s.answer) for s in sequences],
    )  # fmt: skip


def answer_hidden(model: PreTrainedModel, batch: Batch) -> Float[Tensor, "t d"]:
    """Final hidden states from which each answer token is predicted, packed over the batch."""
    hidden = body(model)(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False)
    return hidden.last_hidden_state.flatten(0, 1)[batch.where]


def common_start(prompts: list[tuple[int, ...]]) -> int:
    """How many tokens all prompts begin with, always leaving each prompt its last one."""
    shortest, longest = min(prompts), max(prompts)
    limit = min(map(len, prompts)) - 1
    return next((i for i in range(limit) if shortest[i] != longest[i]), max(limit, 0))


def read_once(model: PreTrainedModel, start: tuple[int, ...], rows: int) -> DynamicCache:
    """The cache of tokens that all rows begin with."""
    cache = DynamicCache(config=model.config)
    if start:
        body(model)(input_ids=torch.tensor([start]).to(model.device), past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(rows)
    return cache


@torch.no_grad()
def read_hidden(model: PreTrainedModel, sequences: list[Tokens]) -> tuple[Float[Tensor, "t d"], Batch]:
    """`answer_hidden` without gradients, reading what all prompts begin with once."""
    n = common_start([s.prompt for s in sequences])
    cache = read_once(model, sequences[0].prompt[:n], len(sequences))
    batch = pack([Tokens(s.prompt[n:], s.answer) for s in sequences], model.device)
    mask = torch.cat([batch.mask.new_ones(len(sequences), n), batch.mask], 1)
    hidden = body(model)(
        input_ids=batch.ids, attention_mask=mask, position_ids=positions(mask)[:, n:], past_key_values=cache,
        use_cache=True,
    )  # fmt: skip
    return hidden.last_hidden_state.flatten(0, 1)[batch.where], batch


def by_length(sequences: list[Tokens], batch_tokens: int) -> Iterator[list[int]]:
    """Indices in batches of similar length, each at most `batch_tokens` after padding."""
    sizes = [len(s.prompt) + len(s.answer) for s in sequences]
    batch: list[int] = []
    for index in sorted(range(len(sequences)), key=sizes.__getitem__):
        if batch and (len(batch) + 1) * sizes[index] > batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


@torch.no_grad()
def hidden_states(
    model: PreTrainedModel, sequences: list[Tokens], *, batch_tokens: int = 4096
) -> list[Float[Tensor, "t d"]]:
    """Each sequence's final hidden states over its answer, kept on the host in the model's type."""
    out: list[Tensor] = [torch.empty(0)] * len(sequences)
    for indices in by_length(sequences, batch_tokens):
        hidden, batch = read_hidden(model, [sequences[i] for i in indices])
        for i, part in zip(indices, hidden.split(batch.lengths), strict=True):
            out[i] = part.cpu()
    return out


def log_likelihood(
    model: PreTrainedModel, hidden: Float[Tensor, "t d"], targets: Int[Tensor, " t"]
) -> Float[Tensor, " t"]:
    """log p(target) for each packed position, in nats."""
    parts = [
        -torch.nn.functional.cross_entropy(head(model, h), y, reduction="none")
        for h, y in zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True)
    ]
    return torch.cat(parts)


@torch.no_grad()
def token_nll(
    model: PreTrainedModel, sequences: list[Tokens], *, batch_tokens: int = 4096
) -> list[Float[Tensor, " t"]]:
    """−log p of every answer token, in nats."""
    out: list[Tensor] = [torch.empty(0)] * len(sequences)
    for indices in by_length(sequences, batch_tokens):
        hidden, batch = read_hidden(model, [sequences[i] for i in indices])
        nll = -log_likelihood(model, hidden, batch.targets)
        for i, part in zip(indices, nll.split(batch.lengths), strict=True):
            out[i] = part.cpu()
    return out


def forward_kl(reference: Float[Tensor, "t v"], student: Float[Tensor, "t v"]) -> Float[Tensor, " t"]:
    """KL(reference‖student) per token, in nats, from logits."""
    p = reference.log_softmax(-1)
    return (p.exp() * (p - student.log_softmax(-1))).sum(-1)


def reverse_kl(reference: Float[Tensor, "t v"], student: Float[Tensor, "t v"]) -> Float[Tensor, " t"]:
    """KL(student‖reference) per token, in nats, from logits."""
    return forward_kl(student, reference)


@torch.no_grad()
def token_divergence(
    model: PreTrainedModel,
    sequences: list[Tokens],
    references: list[Float[Tensor, "_ d"]],
    *,
    divergence: Callable[[Tensor, Tensor], Tensor] = forward_kl,
    batch_tokens: int = 4096,
) -> list[Float[Tensor, " _"]]:
    """Per-token divergence of `model` from a reference given by its cached final hidden states."""
    out: list[Tensor] = [torch.empty(0)] * len(sequences)
    for indices in by_length(sequences, batch_tokens):
        ours, batch = read_hidden(model, [sequences[i] for i in indices])
        theirs = torch.cat([references[i] for i in indices]).to(ours)
        parts = [
            divergence(head(model, r), head(model, h))
            for r, h in zip(theirs.split(CHUNK), ours.split(CHUNK), strict=True)
        ]
        for i, part in zip(indices, torch.cat(parts).split(batch.lengths), strict=True):
            out[i] = part.cpu()
    return out


@torch.no_grad()
def branch_nll(
    model: PreTrainedModel,
    prompts: list[tuple[int, ...]],
    answers: list[list[tuple[int, ...]]],
    *,
    batch_tokens: int = 4096,
) -> list[list[float]]:
    """Mean NLL per token of several answers to each prompt; each prompt is read once and its cache shared.

    `answers[i]` are the candidates for `prompts[i]`; every prompt has the same number of candidates.
    """
    if not prompts:
        return []
    k = len(answers[0])
    out: list[list[float]] = [[] for _ in prompts]
    stems = [Tokens(p, max(a, key=lambda answer: len(answer))) for p, a in zip(prompts, answers, strict=True)]
    for indices in by_length(stems, max(batch_tokens // k, 1)):
        n = common_start([prompts[i] for i in indices])
        cache = read_once(model, prompts[indices[0]][:n], len(indices))
        stem, mask = left_pad([prompts[i][n:-1] for i in indices], model.device)
        mask = torch.cat([mask.new_ones(len(indices), n), mask], 1)
        if stem.shape[1]:
            body(model)(
                input_ids=stem, attention_mask=mask, position_ids=positions(mask)[:, n:],
                past_key_values=cache, use_cache=True,
            )  # fmt: skip
        cache.batch_repeat_interleave(k)
        tails = [Tokens(prompts[i][-1:], a) for i in indices for a in answers[i]]
        tail = pack(tails, model.device)
        full = torch.cat([mask.repeat_interleave(k, 0), tail.mask], 1)
        hidden = body(model)(
            input_ids=tail.ids, attention_mask=full, position_ids=positions(full)[:, mask.shape[1] :],
            past_key_values=cache, use_cache=True,
        ).last_hidden_state.flatten(0, 1)[tail.where]  # fmt: skip
        nll = -log_likelihood(model, hidden, tail.targets)
        means = [part.mean().item() for part in nll.split(tail.lengths)]
        for j, i in enumerate(indices):
            out[i] = means[j * k : (j + 1) * k]
    return out


def left_pad(
    prompts: list[tuple[int, ...]], device: torch.device | str
) -> tuple[Int[Tensor, "b s"], Int[Tensor, "b s"]]:
    """Ids and mask with every prompt's last token in the last column."""
    width = max(len(p) for p in prompts)
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], dtype=torch.long)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], dtype=torch.long)
    return ids.to(device), mask.to(device)


def positions(mask: Int[Tensor, "b s"]) -> Int[Tensor, "b s"]:
    """Position ids that count real tokens only, so that left padding changes nothing."""
    return (mask.cumsum(-1) - 1).clamp_min(0)
