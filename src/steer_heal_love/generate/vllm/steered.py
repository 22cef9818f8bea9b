"""Steering as part of a model's own forward: buffers of fixed place, written before each step.

    h ← h + W[:n] V_l      W [tokens, places]: each token's dose of each vector    V_l [places, d]: layer l's directions

A layer's class is replaced by a subclass whose forward adds this. It is traced and captured with the layer, so that a
compiled graph or a CUDA graph that is replayed reads what the buffers hold at that moment; a hook in Python would not run.
Dose 0 adds zeros. The layer's parameters and their names stay as they were.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

SLOTS = 8
"""vectors that one batch can hold"""
KEY = "steer_heal_love"


def weighted(place: int, dose: float) -> dict[str, dict[str, float]]:
    """What a request carries: its dose of the vector in that place."""
    return {KEY: {str(place): dose}}


class Steered(nn.Module):
    """Comes before a decoder layer's class: its forward, and the addition to the first tensor that it returns.

    Layers that return (hidden, residual) mean their sum by it, so adding to either adds to the stream.
    """

    doses: Tensor
    directions: Tensor

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out = super().forward(*args, **kwargs)
        hidden = out[0] if isinstance(out, tuple) else out
        hidden = hidden + self.doses[: hidden.shape[0]] @ self.directions
        return (hidden, *out[1:]) if isinstance(out, tuple) else hidden


def decoder(model: nn.Module, depth: int) -> nn.ModuleList:
    """The list of decoder layers. Raises `ValueError` where not exactly one list has that many."""
    found = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    if len(found) != 1:
        raise ValueError(f"{type(model).__name__}: {len(found)} lists of {depth} layers, expected one")
    return found[0]


class Buffers:
    """Each layer's directions, and the doses of the tokens of the step now in flight.

    Plain attributes of the layers and no buffers in torch's sense, so that loading weights anew leaves them in place.
    """

    def __init__(self, model: nn.Module, depth: int, width: int, tokens: int, like: Tensor) -> None:
        """`tokens`: the most that a step reads. One row more keeps a compiler from taking the full size as a case of its
        own."""
        self.doses = torch.zeros(tokens + 1, SLOTS, dtype=like.dtype, device=like.device)
        self.directions: dict[int, Tensor] = {}
        self.rows: dict[str, Float[Tensor, " k"]] = {}
        for number, layer in enumerate(decoder(model, depth)):
            if not any(True for _ in layer.parameters()):
                continue  # it lies on another rank of a pipeline
            self.directions[number] = torch.zeros(SLOTS, width, dtype=like.dtype, device=like.device)
            layer.__class__ = type(f"Steered{type(layer).__name__}", (Steered, type(layer)), {})
            layer.__dict__ |= {"doses": self.doses, "directions": self.directions[number]}

    def put(self, named: dict[str, Tensor]) -> None:
        """New directions, by `PLACE.LAYER`; what isn't named is emptied."""
        for layer, held in self.directions.items():
            held.zero_()
            for place in range(SLOTS):
                if (found := named.get(f"{place}.{layer}")) is not None:
                    held[place] = found.to(held)

    def note(self, new: list[tuple[str, Any]], finished: set[str]) -> None:
        """Requests that began, each with the `extra_args` of its sampling, and those that ended."""
        for name in finished:
            self.rows.pop(name, None)
        for name, extra in new:
            row = torch.zeros(SLOTS)
            for place, dose in ((extra or {}).get(KEY) or {}).items():
                row[int(place)] = dose
            self.rows[name] = row

    def fill(self, names: list[str], counts: list[int]) -> None:
        """The doses of the next step, whose rows are those of these requests, so many tokens of each."""
        none = torch.zeros(SLOTS)
        rows = torch.stack([self.rows.get(name, none) for name in names])
        every = rows.repeat_interleave(torch.tensor(counts), 0)
        self.doses[: len(every)] = every.to(self.doses)
