"""Per-token log-probabilities of given tokens, and divergences along them, batched by length.

In: sequences (prompt ids, answer ids). Out: one fp32 tensor a sequence, over its answer tokens, in nats.
Logits exist only for one chunk of tokens at a time, never for batch × sequence × vocabulary. What all the
prompts of a batch begin with (template, system prompt) is read once and its cache shared.
Invariant: a sequence's values don't depend on the batch it travelled in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from steer_heal_love.ground import side_by_side, team
from steer_heal_love.ground.devices import sent
from steer_heal_love.ground.divergence import forward_kl
from steer_heal_love.ground.memory import one_ahead
from steer_heal_love.ground.padding import right_pad
from steer_heal_love.ground.parts import bare, narrow_head
from steer_heal_love.ground.progress import Advance
from steer_heal_love.ground.reading import forward, positions, way
from steer_heal_love.ground.rows import read_in_rows, read_once
from steer_heal_love.ground.vocabulary import nll
from steer_heal_love.nouns import Tokens

CHUNK, LOGITS = 128, 2**27
"""tokens whose logits exist at a time: on a CPU what its caches hold, on a GPU half a gigabyte of fp32"""


def chunk(model: PreTrainedModel) -> int:
    """How many tokens' logits to hold at a time on this model's device."""
    if model.device.type == "cpu":
        return CHUNK
    return max(CHUNK, LOGITS // model.config.get_text_config().vocab_size)


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
    width = max(map(size, sequences))
    ids = torch.zeros(len(sequences), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    where, targets = [], []
    for row, s in enumerate(sequences):
        start, end = len(s.prompt), size(s)
        ids[row, :end] = torch.tensor(s.prompt + s.answer)
        mask[row, :end] = 1
        where.append(torch.arange(start - 1, end - 1) + row * width)
        targets.append(ids[row, start:end])
    return Batch(
        sent(ids, device),
        sent(mask, device),
        sent(torch.cat(where), device),
        sent(torch.cat(targets), device),
        [len(s.answer) for s in sequences],
    )


def answer_hidden(model: PreTrainedModel, batch: Batch) -> Float[Tensor, "t d"]:
    """Final hidden states from which each answer token is predicted, packed over the batch."""
    return whole_hidden(model, batch.ids, batch.mask).flatten(0, 1)[batch.where]


def whole_hidden(
    model: PreTrainedModel, ids: Int[Tensor, "b s"], mask: Int[Tensor, "b s"]
) -> Float[Tensor, "b s d"]:
    """Final hidden states over right-padded rows, without a cache; one by one where they can't be read beside others."""
    if ids.shape[1] <= way(model).beside:
        return forward(model, ids, mask, use_cache=False)[0]
    lengths = mask.sum(1).tolist()
    rows = [forward(model, row[None, :n], use_cache=False)[0][0] for row, n in zip(ids, lengths, strict=True)]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


@torch.no_grad()
def last_hidden(model: PreTrainedModel, rows: list[tuple[int, ...]]) -> Float[Tensor, "b d"]:
    """The final hidden state of each row's last token."""
    ids, mask = right_pad(rows, model.device)
    return whole_hidden(model, ids, mask)[torch.arange(len(rows), device=ids.device), mask.sum(1) - 1]


def common_start(prompts: list[tuple[int, ...]]) -> int:
    """How many tokens all prompts begin with, always leaving each prompt its last one."""
    shortest, longest = min(prompts), max(prompts)
    limit = min(map(len, prompts)) - 1
    return next((i for i in range(limit) if shortest[i] != longest[i]), max(limit, 0))


A_PASS = 4096
"""tokens that a GPU reads in about the time that it takes to launch the kernels of one more pass"""


def worth_sharing(model: PreTrainedModel, prompts: list[tuple[int, ...]]) -> int:
    """How many tokens at the start of all prompts to read once, in a pass of their own; on a GPU none where that pass would
    cost more than it saves."""
    n = common_start(prompts)
    return 0 if model.device.type != "cpu" and n * (len(prompts) - 1) < A_PASS else n


SHARED = 0.25
"""share of a batch's tokens that reading a common start once has to save to be worth padding and masks, on a GPU"""


def size(tokens: Tokens) -> int:
    return len(tokens.prompt) + len(tokens.answer)


def read_side_by_side(model: PreTrainedModel, sequences: list[Tokens]) -> tuple[Float[Tensor, "t d"], Batch]:
    """`answer_hidden` of texts side by side in one row."""
    given, at = side_by_side.answered(sequences, model.device)
    lengths = [len(s.answer) for s in sequences]
    hidden = side_by_side.states(model, given)[0][at]
    return hidden, Batch(given.ids, torch.ones_like(given.ids), at, given.ids[0, at + 1], lengths)


@torch.no_grad()
def read_hidden(model: PreTrainedModel, sequences: list[Tokens]) -> tuple[Float[Tensor, "t d"], Batch]:
    """`answer_hidden` without gradients, reading what all prompts begin with once where a model's way allows it."""
    longest = max(map(size, sequences))
    if longest > way(model).inside:
        batch = pack(sequences, model.device)
        return answer_hidden(model, batch), batch
    n = worth_sharing(model, [s.prompt for s in sequences])
    if model.device.type == "cuda" and side_by_side.suits(model, longest):
        saved = n * (len(sequences) - 1)
        if saved < SHARED * sum(map(size, sequences)):
            return read_side_by_side(model, sequences)
    if model.device.type == "cpu":
        batch = pack([Tokens(s.prompt[-1:], s.answer) for s in sequences], model.device)
        return read_in_rows(model, sequences, n), batch
    cache = read_once(model, sequences[0].prompt[:n], len(sequences))
    batch = pack([Tokens(s.prompt[n:], s.answer) for s in sequences], model.device)
    mask = torch.cat([batch.mask.new_ones(len(sequences), n), batch.mask], 1)
    hidden, _ = forward(model, batch.ids, mask, positions(mask)[:, n:], cache)
    return hidden.flatten(0, 1)[batch.where], batch


def sorted_by_length(sequences: list[Tokens]) -> list[int]:
    """Indices, the shortest sequence first."""
    return sorted(range(len(sequences)), key=lambda i: size(sequences[i]))


def by_length(
    sequences: list[Tokens], batch_tokens: int, chosen: list[int] | None = None
) -> Iterator[list[int]]:
    """Indices in batches of similar length, each at most `batch_tokens` after padding; of all, or of those `chosen`,
    which come sorted by length."""
    sizes = [size(s) for s in sequences]
    order = sorted_by_length(sequences) if chosen is None else chosen
    yield from at_a_time(order, lambda batch: len(batch) * sizes[batch[-1]] <= batch_tokens)


def at_a_time(order: Iterable[int], fits: Callable[[list[int]], bool]) -> Iterator[list[int]]:
    """`order` in batches, each of as many as `fits`, and of one at least."""
    batch: list[int] = []
    for index in order:
        if batch and not fits([*batch, index]):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


@torch.no_grad()
def forward_all(
    model: PreTrainedModel,
    sequences: list[Tokens],
    batch_tokens: int,
    values: Callable[[Float[Tensor, "t d"], Batch, list[int]], Iterable[Tensor]],
    advance: Advance = lambda _n: None,
) -> list[Tensor]:
    """What `values(hidden, batch, indices)` gives of each sequence of a batch, on the host, in the sequences' order."""
    out: list[Tensor] = [torch.empty(0)] * len(sequences)

    def look(indices: list[int]) -> list[Tensor]:
        hidden, batch = read_hidden(model, [sequences[i] for i in indices])
        return list(values(hidden, batch, indices))

    def put(indices: list[int], found: list[Tensor]) -> None:
        for i, part in zip(indices, found, strict=True):
            out[i] = part
        advance(len(indices))

    with team.sharing(sorted_by_length(sequences)) as mine:
        one_ahead(by_length(sequences, batch_tokens, mine), look, put)
        advance(len(sequences) - len(mine))
    return team.filled(out, mine)


def hidden_states(
    model: PreTrainedModel,
    sequences: list[Tokens],
    *,
    batch_tokens: int = 4096,
    advance: Advance = lambda _n: None,
) -> list[Float[Tensor, "t d"]]:
    """Each sequence's final hidden states over its answer, kept on the host in the model's type."""
    values = lambda hidden, batch, _: hidden.split(batch.lengths)
    return forward_all(model, sequences, batch_tokens, values, advance)


def log_likelihood(
    model: PreTrainedModel, hidden: Float[Tensor, "t d"], targets: Int[Tensor, " t"]
) -> Float[Tensor, " t"]:
    """log p(target) for each packed position, in nats."""
    parts = [
        -nll(narrow_head(model, h), y)
        for h, y in zip(hidden.split(chunk(model)), targets.split(chunk(model)), strict=True)
    ]
    return torch.cat(parts)


def token_nll(
    model: PreTrainedModel,
    sequences: list[Tokens],
    *,
    batch_tokens: int = 4096,
    advance: Advance = lambda _n: None,
) -> list[Float[Tensor, " t"]]:
    """−log p of every answer token, in nats."""

    def surprise(hidden: Tensor, batch: Batch, _: list[int]) -> Iterable[Tensor]:
        return (-log_likelihood(model, hidden, batch.targets)).split(batch.lengths)

    return forward_all(model, sequences, batch_tokens, surprise, advance)


def token_order(
    model: PreTrainedModel,
    sequences: list[Tokens],
    *,
    batch_tokens: int = 4096,
    advance: Advance = lambda _n: None,
) -> list[Float[Tensor, "2 t"]]:
    """−log p of every answer token, in nats, and the share of the answer's other tokens that is less likely there.

    Both are read from the same logits. The share is NaN in an answer of one token.
    """

    def orders(hidden: Tensor, batch: Batch, _: list[int]) -> Iterable[Tensor]:
        parts = zip(hidden.split(batch.lengths), batch.targets.split(batch.lengths), strict=True)
        for h, own in parts:
            found = []
            for states, targets in zip(h.split(chunk(model)), own.split(chunk(model)), strict=True):
                logits = narrow_head(model, states)
                beaten = (logits[:, own] < logits.gather(1, targets[:, None])).sum(1)
                found.append(torch.stack([nll(logits, targets), beaten / (len(own) - 1)]))
            yield torch.cat(found, 1)

    return forward_all(model, sequences, batch_tokens, orders, advance)


def token_divergence(
    model: PreTrainedModel,
    sequences: list[Tokens],
    references: list[Float[Tensor, "_ d"]],
    *,
    divergence: Callable[[Tensor, Tensor], Tensor] = forward_kl,
    batch_tokens: int = 4096,
) -> list[Float[Tensor, " _"]]:
    """Per-token divergence of `model` from a reference given by its cached final hidden states over the same answers (after
    prompts of its own), which the base's own output layer reads whatever an active context adds to that layer."""
    speak = bare(model)

    def by_row(ours: Tensor, batch: Batch, indices: list[int]) -> Iterable[Tensor]:
        theirs = sent(torch.cat([references[i] for i in indices]), ours.device).to(ours)
        parts = [
            divergence(speak(r), narrow_head(model, h))
            for r, h in zip(theirs.split(chunk(model)), ours.split(chunk(model)), strict=True)
        ]
        return torch.cat(parts).split(batch.lengths)

    return forward_all(model, sequences, batch_tokens, by_row)
