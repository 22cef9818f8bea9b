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
from steer_heal_love.ground.models import body, head
from steer_heal_love.ground.progress import Advance, Track, silent
from steer_heal_love.ground.scoring import left_pad, positions


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
    with track(label, len(groups) * max_new_tokens) as advance:
        for rows in groups:
            row_doses = (
                torch.tensor([doses[i] for i in rows], device=model.device) if doses is not None else None
            )
            steered = steer is not None and row_doses is not None
            with added(model, steer, row_doses) if steered else nullcontext() as dose:  # type: ignore[arg-type]
                answers = _decode(
                    model, [prompts[i] for i in rows], uniforms[rows].to(model.device), ends, temperature,
                    min_p, dose, advance,
                )  # fmt: skip
            for i, answer in zip(rows, answers, strict=True):
                out[i] = answer
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
    """Each turn of the loop is one step, or on a GPU a whole span of them; ended rows leave after it."""
    answers: list[tuple[int, ...]] = [()] * len(prompts)
    alive, total = list(range(len(prompts))), uniforms.shape[1]
    ids, mask = left_pad(prompts, model.device)
    cache = DynamicCache(config=model.config)
    stop = torch.tensor(sorted(ends), device=model.device)
    ended = lambda tokens: torch.isin(tokens, stop)
    done = 0
    while alive and done < total:
        left = uniforms[:, done:]
        if done and replay.suits(model, cache, mask.shape[1] + total - done):
            pick = lambda hidden, step, left=left: choose(
                head(model, hidden), left.index_select(1, step).squeeze(1), temperature, min_p
            )
            cached = mask[:, :-1]
            tokens = replay.ahead(
                model, cache, cached, ids.squeeze(1), min(replay.SPAN, total - done), pick, ended
            )
        else:
            places = positions(mask)[:, -ids.shape[1] :]
            hidden = body(model)(
                input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True
            ).last_hidden_state[:, -1]
            tokens = choose(head(model, hidden), left[:, 0], temperature, min_p).unsqueeze(1)
        done += tokens.shape[1]
        advance(tokens.shape[1])
        over = ended(tokens)
        first = torch.where(over.any(1), over.int().argmax(1) + 1, tokens.shape[1])
        for row, more, n in zip(alive, tokens.tolist(), first.tolist(), strict=True):
            answers[row] += tuple(more[:n])
        keep = (~over.any(1)).nonzero().squeeze(1)
        if len(keep) < len(alive):
            alive = [alive[i] for i in keep.tolist()]
            cache.batch_select_indices(keep)
            mask, tokens, uniforms = mask[keep], tokens[keep], uniforms[keep]
            if doses is not None and not isinstance(doses.rows, float):
                doses.rows = doses.rows[keep.to(doses.rows.device)]
        ids = tokens[:, -1:]
        mask = torch.cat([mask, mask.new_ones(len(mask), tokens.shape[1])], 1)
    advance(total - done)
    return answers


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
