"""Texts one after another in one row, each seeing itself alone: no padding, and one pass for texts of any lengths.

On a CUDA device in half precision the flash kernel that torch brings reads all texts at once (Dao 2023, arXiv:2307.08691);
elsewhere each text's attention is computed by itself, and only the products around it are shared.

Which models can be read so is asked of the model itself: the states of a few texts read side by side have to be those of
each read alone. A model that carries anything but attention from token to token fails that, and is read in padded rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from steer_heal_love.ground.attention import does_more
from steer_heal_love.ground.devices import sent
from steer_heal_love.ground.reading import Trial, forward, limits, passes
from steer_heal_love.ground.replay import attending
from steer_heal_love.ground.spread import is_spread
from steer_heal_love.nouns import Tokens

NAME = "side_by_side"
HALVES = (torch.bfloat16, torch.float16)
_tried: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


@dataclass(frozen=True)
class Texts:
    """Token ids of several texts in one row, each token's place in its own text, and where each text ends."""

    ids: Int[Tensor, "1 s"]
    places: Int[Tensor, "1 s"]
    ends: Int[Tensor, " e"]
    """int32: 0, then the end of each text"""
    lengths: list[int]
    longest: int


def texts(rows: list[tuple[int, ...]], device: torch.device | str) -> Texts:
    """These texts side by side."""
    lengths = [len(row) for row in rows]
    return Texts(
        sent(torch.tensor([[i for row in rows for i in row]]), device),
        sent(torch.cat([torch.arange(n) for n in lengths]).unsqueeze(0), device),
        sent(torch.tensor([0, *accumulate(lengths)], dtype=torch.int32), device),
        lengths,
        max(lengths),
    )


def answered(rows: list[Tokens], device: torch.device | str) -> tuple[Texts, Int[Tensor, " t"]]:
    """Prompts with their answers side by side, and the positions before each answer token."""
    at = where([(len(t.prompt), len(t.answer)) for t in rows])
    return texts([t.prompt + t.answer for t in rows], device), sent(at, device)


def where(sizes: list[tuple[int, int]]) -> Int[Tensor, " t"]:
    """The positions before each answer token, in a row of texts whose prompts and answers are so long."""
    starts = accumulate((p + a for p, a in sizes), initial=0)
    return torch.cat(
        [torch.arange(at + p - 1, at + p + a - 1) for at, (p, a) in zip(starts, sizes, strict=False)]
    )


_now: list[Texts] = []
"""the texts that attention is to keep apart, innermost last"""


@contextmanager
def kept_apart(model: PreTrainedModel, given: Texts) -> Iterator[None]:
    """Attention that keeps these texts of a row from seeing each other."""
    _now.append(given)
    try:
        with attending(model, NAME):
            yield
    finally:
        _now.pop()


def states(model: PreTrainedModel, given: Texts) -> Float[Tensor, "1 s d"]:
    """Final hidden states of texts side by side; only where `suits` says that the model can be read so."""
    with kept_apart(model, given):
        return forward(model, given.ids, None, given.places, use_cache=False)[0]


def suits(model: PreTrainedModel, longest: int) -> bool:
    """Whether texts of up to so many tokens may be read side by side: tried on the first call, and kept."""
    if model not in _tried:
        _tried[model] = possible(model) and passes(lambda: alike(Trial(model)))
    return _tried[model] and longest <= min(limits(model))


def possible(model: PreTrainedModel) -> bool:
    """Whether attention can be swapped at all, and is worth it on this device: on a GPU only where one kernel reads all."""
    swappable = getattr(model, "_supports_attention_backend", False) and not is_spread(model)
    return swappable and (model.device.type == "cpu" or model.dtype in HALVES)


@torch.no_grad()
def alike(trial: Trial) -> bool:
    """Whether rows read side by side have the states that each has alone."""
    found = states(trial.model, texts(trial.rows, trial.model.device))[0]
    each = found.split([len(row) for row in trial.rows])
    return all(trial.close(h, trial.alone(row)) for h, row in zip(each, trial.rows, strict=True))


def attend(
    module: nn.Module,
    query: Float[Tensor, "1 h s d"],
    key: Float[Tensor, "1 g s d"],
    value: Float[Tensor, "1 g s d"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Float[Tensor, "1 s h d"], None]:
    """Causal attention within each of the texts that are kept apart. A window is wider than any of them (`suits`)."""
    if does_more(kwargs) or attention_mask is not None or dropout:
        raise NotImplementedError("attention that does more than is known here")
    if query.is_cuda and query.dtype in HALVES:
        return flash(query, key, value, scaling, _now[-1]), None
    lengths = _now[-1].lengths
    parts = zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True)
    shared = query.shape[1] != key.shape[1]
    found = [
        nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=q.shape[2] > 1, scale=scaling, enable_gqa=shared
        )
        for q, k, v in parts
    ]
    return torch.cat(found, 2).transpose(1, 2), None


def flash(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, given: Texts) -> Tensor:
    """All texts by one kernel, which reads [s h d] and shares keys among the heads of a group."""
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    out = torch.ops.aten._flash_attention_forward(
        q, k, v, given.ends, given.ends, given.longest, given.longest, 0.0, True, False, scale=scaling
    )
    return out[0].unsqueeze(0)  # type: ignore[no-any-return]


# No mask is registered under this name, so the library makes none.
AttentionInterface.register(NAME, attend)
