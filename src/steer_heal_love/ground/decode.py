"""The decode loop: steered and plain generation, one code path.

In: rendered prompts, one dose each (0 is plain). Out: the sampled token ids, end-of-turn included.

Rows are sorted by prompt length, decoded together with a key/value cache as the model's way of reading allows
(`reading.Way`: left-padded, or rows of one length, or without the cache), and leave the batch as they finish. Each row draws from its own stream of uniforms, seeded by (seed, row), by inverse CDF:

    token = min { v : Σ_{w ≤ v} p(w) > u },   p = softmax(logits/temperature) over { p ≥ min_p · max p }

Invariant: a row's tokens don't depend on the batch it travelled in (up to the arithmetic of the hardware).
Source of min-p: arXiv 2407.01082.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import lru_cache
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from steer_heal_love.ground import replay, team
from steer_heal_love.ground.condition import Condition
from steer_heal_love.ground.devices import brought, sent
from steer_heal_love.ground.hooks import Doses
from steer_heal_love.ground.memory import halving
from steer_heal_love.ground.operations import Steering
from steer_heal_love.ground.padding import left_pad
from steer_heal_love.ground.parts import narrow_head
from steer_heal_love.ground.places import Rows
from steer_heal_love.ground.progress import Advance, Track, silent
from steer_heal_love.ground.reading import forward, positions, select, way
from steer_heal_love.ground.scoring import last_hidden, worth_sharing
from steer_heal_love.ground.vocabulary import kernels, widened


def sample(
    model: PreTrainedModel,
    prompts: list[tuple[int, ...]],
    *,
    ends: frozenset[int],
    max_new_tokens: int,
    seed: int,
    steer: Mapping[int, Rows] | None = None,
    doses: list[float] | None = None,
    operation: str = "add",
    when: Condition | None = None,
    temperature: float = 1.0,
    min_p: float = 0.1,
    batch: int = 64,
    streams: Sequence[int] | None = None,
    track: Track = silent,
    label: str = "generate",
) -> list[tuple[int, ...]]:
    """Sampled answers in the order of `prompts`; temperature 0 takes the likeliest token.

    `ends`: tokens that close an answer (kept as its last). `doses`: one a prompt, needs `steer`.
    `operation`: what the directions in `steer` do to the hidden state (`ground.operations`). `when`: steer only the rows whose
    prompt meets this condition. `streams`: the row number that each prompt draws as; its place among `prompts` when not given.
    """
    if (steer is None) != (doses is None):
        raise ValueError("doses and steer come together")
    if not prompts:
        return []
    if when is not None and doses is not None:
        doses = when.doses(model, prompts, doses)
    uniforms = torch.stack(
        [
            torch.rand(max_new_tokens, generator=torch.Generator().manual_seed(row_seed(seed, row)))
            for row in (range(len(prompts)) if streams is None else streams)
        ]
    )
    out: list[tuple[int, ...]] = [()] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    with team.sharing(order) as mine, track(label, len(mine) * max_new_tokens) as advance:
        groups = [mine[i : i + batch] for i in range(0, len(mine), batch)]
        groups = [g for group in groups for g in batches_as_alone(model, prompts, group, max_new_tokens)]

        def decode(rows: list[int]) -> None:
            row_doses = (
                torch.tensor([doses[i] for i in rows], device=model.device) if doses is not None else None
            )
            steered = steer is not None and row_doses is not None
            with Steering(steer, operation)(model, row_doses) if steered else nullcontext() as dose:  # type: ignore[arg-type]
                wide = max(len(prompts[i]) for i in rows) + max_new_tokens
                answers = (_decode if wide <= way(model).cached else _read_again)(
                    model,
                    [prompts[i] for i in rows],
                    uniforms[rows].to(model.device),
                    ends,
                    temperature,
                    min_p,
                    dose,
                    lambda n: advance(n * len(rows)),
                )
            for i, answer in zip(rows, answers, strict=True):
                out[i] = answer

        halving(groups, decode)
    return team.answers(out, mine)


def row_seed(seed: int, row: int) -> int:
    """What a row's own stream of draws is seeded with."""
    return seed * 1_000_003 + row


def batches_as_alone(
    model: PreTrainedModel, prompts: list[tuple[int, ...]], group: list[int], more: int
) -> list[list[int]]:
    """A group of rows, sorted by length, as the batches in which each decodes as it would alone."""
    columns, known = len(prompts[group[-1]]) + more, way(model)
    manner = known.manner(columns)
    if manner in ("inside", "front") or (manner == "again" and columns <= known.beside):
        return [group]
    if manner == "equal" and known.rows:
        return [list(rows) for _, rows in groupby(group, lambda i: len(prompts[i]))]
    return [[i] for i in group]


@torch.no_grad()
def _decode(
    model: PreTrainedModel,
    prompts: list[tuple[int, ...]],
    uniforms: Float[Tensor, "b t"],
    ends: frozenset[int],
    temperature: float,
    min_p: float,
    doses: Doses | None,
    advance: Advance,
) -> list[tuple[int, ...]]:
    alive, done, total = list(range(len(prompts))), 1, uniforms.shape[1]
    stop = torch.tensor(sorted(ends), device=model.device)
    even = way(model).manner(max(map(len, prompts)) + total) == "equal"
    cache, mask, hidden = prefill(model, prompts, total, doses)
    tokens = choose(narrow_head(model, hidden), uniforms[:, 0], temperature, min_p).unsqueeze(1)
    before = torch.isin(tokens, stop).squeeze(1)
    known = replay.known_at_once(before)
    written = [(alive, later(tokens))]
    advance(1)
    while done < total and not known.all():
        if known.any():
            going = (~known).nonzero().squeeze(1)
            alive, keep = [alive[i] for i in going.tolist()], sent(going, model.device)
            select(cache, keep)
            mask, tokens, uniforms, before = mask[keep], tokens[keep], uniforms[keep], before[keep]
            if doses is not None and not isinstance(doses.rows, float):
                doses.rows = doses.rows[keep]
        left = uniforms[:, done:]
        draw = lambda hidden, step, left=left: choose(
            narrow_head(model, hidden), left.index_select(1, step).squeeze(1), temperature, min_p
        )
        ended = lambda chosen, before=before: before | torch.isin(chosen, stop).any(1)
        tokens, look = replay.steps(model, cache, mask, tokens[:, -1], total - done, draw, ended, even=even)
        written.append((alive, later(tokens)))
        mask, before = torch.cat([mask, mask.new_ones(tokens.shape)], 1), ended(tokens)
        advance(tokens.shape[1])
        done += tokens.shape[1]
        known = look()
    advance(total - done)
    return put_together(len(prompts), written, ends)


def later(tokens: Int[Tensor, "b t"]) -> Callable[[], Tensor]:
    """What gives these tokens. A span's are sent to the host now, so that asking waits for nothing after them."""
    if tokens.shape[1] == 1:
        return lambda: tokens
    sent_off = brought([tokens])
    return lambda: sent_off()[0]


def put_together(
    rows: int, written: list[tuple[list[int], Callable[[], Tensor]]], ends: frozenset[int]
) -> list[tuple[int, ...]]:
    """Each row's answer, from what was written of which rows, bit by bit. A row may have been written on after its end."""
    answers: list[list[int]] = [[] for _ in range(rows)]
    for which, fetch in written:
        for row, more in zip(which, fetch().tolist(), strict=True):
            answer = answers[row]
            if answer and answer[-1] in ends:
                continue
            last = next((i for i, token in enumerate(more) if token in ends), len(more) - 1)
            answer += more[: last + 1]
    return [tuple(answer) for answer in answers]


def prefill(
    model: PreTrainedModel, prompts: list[tuple[int, ...]], more: int, doses: Doses | None
) -> tuple[Any, Int[Tensor, "b s"], Float[Tensor, "b d"]]:
    """The prompts' cache, its mask, and their last hidden states; what all begin with is read once a dose where the
    model's way allows it."""
    manner = way(model).manner(max(map(len, prompts)) + more)
    n = worth_sharing(model, prompts) if manner == "inside" else 0
    cache = _begun(model, prompts[0][:n], len(prompts), doses) if n else None
    ids, mask = left_pad([p[n:] for p in prompts], model.device)
    mask = torch.cat([mask.new_ones(len(mask), n), mask], 1)
    hidden, cache = forward(model, ids, None if manner == "equal" else mask, positions(mask)[:, n:], cache)
    return cache, mask, hidden[:, -1]


def _begun(model: PreTrainedModel, start: tuple[int, ...], rows: int, doses: Doses | None) -> Any:
    """The cache of what all rows begin with, read once a dose, for each row."""
    which = torch.zeros(rows, dtype=torch.long, device=model.device)
    each = doses.rows if doses is not None and isinstance(doses.rows, Tensor) else None
    if doses is not None and each is not None:
        doses.rows, which = each.unique(return_inverse=True)
    ids = torch.tensor([start], device=model.device).expand(int(which.max()) + 1, -1)
    _, cache = forward(model, ids)
    select(cache, which)
    if doses is not None and each is not None:
        doses.rows = each
    return cache


@torch.no_grad()
def _read_again(
    model: PreTrainedModel,
    prompts: list[tuple[int, ...]],
    uniforms: Float[Tensor, "b t"],
    ends: frozenset[int],
    temperature: float,
    min_p: float,
    doses: Doses | None,
    advance: Advance,
) -> list[tuple[int, ...]]:
    """As `_decode`, for a model that doesn't go on from its own cache as it reads: every row whole for every token."""
    answers: list[tuple[int, ...]] = [()] * len(prompts)
    alive, total = list(range(len(prompts))), uniforms.shape[1]
    for t in range(total):
        advance(1)
        hidden = last_hidden(model, [prompts[i] + answers[i] for i in alive])
        tokens = choose(narrow_head(model, hidden), uniforms[alive, t], temperature, min_p).tolist()
        for i, token in zip(alive, tokens, strict=True):
            answers[i] += (token,)
        keep = [k for k, token in enumerate(tokens) if token not in ends]
        alive = [alive[k] for k in keep]
        if doses is not None and not isinstance(doses.rows, float):
            doses.rows = doses.rows[keep]
        if not alive:
            advance(total - t - 1)
            break
    return answers


def choose(
    logits: Float[Tensor, "b v"], uniform: Float[Tensor, " b"], temperature: float, min_p: float
) -> Int[Tensor, " b"]:
    """One token a row: min-p truncation, then inverse CDF at `uniform`."""
    if temperature == 0:
        return logits.argmax(-1)
    if fused := kernels(logits):
        return fused.drawn(logits, uniform, temperature, min_p)  # type: ignore[no-any-return]
    logits = widened(logits)
    if temperature != 1:
        logits = logits / temperature
    odds = (logits - logits.amax(-1, keepdim=True)).exp_()
    if min_p > 0:
        odds.masked_fill_(odds < min_p, 0.0)
    return drawn(odds, uniform)


def drawn(odds: Float[Tensor, "b v"], uniform: Float[Tensor, " b"]) -> Int[Tensor, " b"]:
    """min { v : Σ_{w ≤ v} odds(w) > uniform · Σ odds }, a row each; never a token whose odds are 0.

    The running sum over the whole vocabulary is the slowest thing in a draw. So blocks of tokens are summed up first, one
    block is chosen, and only in that one are tokens summed up one by one. A row whose odds are no numbers, as where
    half precision overflows, draws some token of the vocabulary: such a text falls in the filter, and the others go on.
    """
    blocks = odds.unflatten(-1, (block_count(odds.shape[-1]), -1))
    masses = blocks.sum(-1)
    edges = masses.cumsum(-1)
    target = (uniform * edges[:, -1]).unsqueeze(1)
    block = first_above(masses, edges, target)
    inside = blocks.gather(1, block.unsqueeze(-1).expand(-1, -1, blocks.shape[-1])).squeeze(1)
    before = nn.functional.pad(edges, (1, 0)).gather(1, block)
    token = first_above(inside, inside.cumsum(-1), target - before)
    return (block * blocks.shape[-1] + token).squeeze(1)


def first_above(
    odds: Float[Tensor, "b n"], sums: Float[Tensor, "b n"], target: Float[Tensor, "b 1"]
) -> Int[Tensor, "b 1"]:
    """The first place with odds whose running sum is above `target`. Rounding may have put the target at the last sum or
    beyond, and some of a GPU's running sums a place without odds above its neighbour."""
    sums = sums.masked_fill(odds == 0, -math.inf)
    below = torch.nextafter(sums.amax(-1, keepdim=True), torch.zeros_like(target))
    return (sums > torch.minimum(target, below)).int().argmax(-1, keepdim=True)


@lru_cache
def block_count(vocabulary: int) -> int:
    """The largest divisor that is at most the square root: equal blocks, of which there are about as many as each is long."""
    return next(n for n in range(math.isqrt(vocabulary), 0, -1) if vocabulary % n == 0)
