"""The decode loop: steered and plain generation, one code path.

In: rendered prompts, one dose each (0 is plain). Out: the sampled token ids, end-of-turn included.

Rows are sorted by prompt length, left-padded, decoded together with a key/value cache, and leave the batch
as they finish. Each row draws from its own stream of uniforms, seeded by (seed, row), by inverse CDF:

    token = min { v : Σ_{w ≤ v} p(w) > u },   p = softmax(logits/temperature) over { p ≥ min_p · max p }

Invariant: a row's tokens don't depend on the batch it travelled in (up to the arithmetic of the hardware).
Source of min-p: arXiv 2407.01082.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from steer_heal_love.ground import replay
from steer_heal_love.ground.hooks import Doses, added
from steer_heal_love.ground.memory import halving
from steer_heal_love.ground.models import body, head
from steer_heal_love.ground.progress import Advance, Track, silent
from steer_heal_love.ground.scoring import common_start, left_pad, positions


def sample(
    model: PreTrainedModel,
    prompts: list[tuple[int, ...]],
    *,
    ends: frozenset[int],
    max_new_tokens: int,
    seed: int,
    steer: Mapping[int, Float[Tensor, " d"]] | None = None,
    doses: list[float] | None = None,
    temperature: float = 1.0,
    min_p: float = 0.1,
    batch: int = 64,
    track: Track = silent,
    label: str = "generate",
) -> list[tuple[int, ...]]:
    """Sampled answers in the order of `prompts`; temperature 0 takes the likeliest token.

    `ends`: tokens that close an answer (kept as its last). `doses`: one a prompt, needs `steer`.
    """
    if (steer is None) != (doses is None):
        raise ValueError("doses and steer come together")
    if not prompts:
        return []
    uniforms = torch.stack(
        [torch.rand(max_new_tokens, generator=torch.Generator().manual_seed(seed * 1_000_003 + row))
         for row in range(len(prompts))]
    )  # fmt: skip
    out: list[tuple[int, ...]] = [()] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    groups = [order[i : i + batch] for i in range(0, len(order), batch)]
    with track(label, len(prompts) * max_new_tokens) as advance:

        def decode(rows: list[int]) -> None:
            row_doses = (
                torch.tensor([doses[i] for i in rows], device=model.device) if doses is not None else None
            )
            steered = steer is not None and row_doses is not None
            with added(model, steer, row_doses) if steered else nullcontext() as dose:  # type: ignore[arg-type]
                answers = _decode(
                    model, [prompts[i] for i in rows], uniforms[rows].to(model.device), ends, temperature,
                    min_p, dose, lambda n: advance(n * len(rows)),
                )  # fmt: skip
            for i, answer in zip(rows, answers, strict=True):
                out[i] = answer

        halving(groups, decode)
    return out


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
    answers: list[tuple[int, ...]] = [()] * len(prompts)
    alive, done, total = list(range(len(prompts))), 1, uniforms.shape[1]
    stop = torch.tensor(sorted(ends), device=model.device)
    cache, mask, hidden = _read(model, prompts, doses)
    tokens = choose(head(model, hidden), uniforms[:, 0], temperature, min_p).unsqueeze(1)
    while True:
        advance(tokens.shape[1])
        ended = torch.isin(tokens, stop)
        going = ~ended.any(1)
        lengths = torch.where(going, tokens.shape[1], ended.int().argmax(1) + 1)
        for row, more, n in zip(alive, tokens.tolist(), lengths.tolist(), strict=True):
            answers[row] += tuple(more[:n])
        if done == total or not going.any():
            advance(total - done)
            return answers
        if not going.all():
            keep = going.nonzero().squeeze(1)
            alive = [alive[i] for i in keep.tolist()]
            cache.batch_select_indices(keep)
            mask, tokens, uniforms = mask[keep], tokens[keep], uniforms[keep]
            if doses is not None and not isinstance(doses.rows, float):
                doses.rows = doses.rows[keep]
        left = uniforms[:, done:]
        draw = lambda hidden, step, left=left: choose(
            head(model, hidden), left.index_select(1, step).squeeze(1), temperature, min_p
        )
        over = lambda chosen: torch.isin(chosen, stop).any(1).all()
        tokens = replay.steps(model, cache, mask, tokens[:, -1], total - done, draw, over)
        mask = torch.cat([mask, mask.new_ones(tokens.shape)], 1)
        done += tokens.shape[1]


def _read(
    model: PreTrainedModel, prompts: list[tuple[int, ...]], doses: Doses | None
) -> tuple[DynamicCache, Int[Tensor, "b s"], Float[Tensor, "b d"]]:
    """The prompts' cache, its mask, and their last hidden states; what all begin with is read once a dose."""
    n = common_start(prompts)
    cache = DynamicCache(config=model.config)
    which = torch.zeros(len(prompts), dtype=torch.long, device=model.device)
    if n:
        each = doses.rows if doses is not None and isinstance(doses.rows, Tensor) else None
        if doses is not None and each is not None:
            doses.rows, which = each.unique(return_inverse=True)
        start = torch.tensor([prompts[0][:n]], device=model.device).expand(int(which.max()) + 1, -1)
        body(model)(input_ids=start, past_key_values=cache, use_cache=True)
        cache.batch_select_indices(which)
        if doses is not None and each is not None:
            doses.rows = each
    ids, mask = left_pad([p[n:] for p in prompts], model.device)
    mask = torch.cat([mask.new_ones(len(mask), n), mask], 1)
    hidden = body(model)(
        input_ids=ids, attention_mask=mask, position_ids=positions(mask)[:, n:], past_key_values=cache, use_cache=True
    ).last_hidden_state[:, -1]  # fmt: skip
    return cache, mask, hidden


def choose(
    logits: Float[Tensor, "b v"], uniform: Float[Tensor, " b"], temperature: float, min_p: float
) -> Int[Tensor, " b"]:
    """One token a row: min-p truncation, then inverse CDF at `uniform`."""
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits / temperature
    if min_p > 0:
        floor = logits.amax(-1, keepdim=True) + math.log(min_p)
        logits = logits.masked_fill(logits < floor, -math.inf)
    cdf = logits.softmax(-1).cumsum(-1)
    # Scaling by the last entry keeps u < 1 inside the table whatever the rounding of the sum.
    return torch.searchsorted(cdf, (uniform * cdf[:, -1]).unsqueeze(1), right=True).squeeze(1)
