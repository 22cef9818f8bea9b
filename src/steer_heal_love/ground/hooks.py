"""Contexts that change what a model computes, without touching its weights.

`added`    adds dose·v to the output of decoder layers, or of a linear module in each (`ground.places`), one dose a row;
`captured` reads one position's state at the same places, and stops the forward after the topmost layer;
`adapted`  adds s·B(A x) to linear modules (a LoRA that is not merged);
`biased`   adds one vector to the final logits at every position, whatever the context;
`cooled`   divides the final logits by a temperature.

The last two act after the model's own scalings and softcap, on the logits of its forward and on those that
`models.head` makes of hidden states; cached states of the base stay the base's (`models.bare`).

Invariants: hooks are registered inside the guard and removed on every way out; no context of the same kind
is entered twice on one model; dose 0, B = 0, bias 0 and temperature 1 leave the output as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from steer_heal_love.ground import fits, places
from steer_heal_love.ground.parts import Edit, body, edits, moved, stream
from steer_heal_love.ground.places import Rows

_entered: WeakKeyDictionary[nn.Module, set[str]] = WeakKeyDictionary()


@contextmanager
def once(model: nn.Module, kind: str) -> Iterator[None]:
    """Refuse to enter the same kind of context twice on one model."""
    kinds = _entered.setdefault(model, set())
    if kind in kinds:
        raise RuntimeError(f"this model is already inside {kind!r}; leave that context first")
    kinds.add(kind)
    try:
        yield
    finally:
        kinds.discard(kind)


def hooked(model: nn.Module) -> bool:
    """Whether anything but its weights decides what the model computes: a hook on a module, or an edit of its logits."""
    return bool(edits(model)) or any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@dataclass
class Doses:
    """The dose of each row of the batch now in flight; the decode loop shortens it as rows finish."""

    rows: Float[Tensor, " b"] | float

    def of(self, hidden: Tensor) -> Tensor | float:
        if isinstance(self.rows, float):
            return self.rows
        if len(self.rows) != len(hidden):
            raise ValueError(f"{len(self.rows)} doses for a batch of {len(hidden)} rows")
        return self.rows.to(hidden)[:, None, None]


Shift = Callable[[Float[Tensor, "b t d"], Rows, Doses], Tensor]
"""what is added to a hidden state: from the state, the direction (or rows) in place, and the doses"""


def added(
    model: PreTrainedModel, directions: Mapping[int, Float[Tensor, " d"]], dose: float | Float[Tensor, " b"]
) -> AbstractContextManager[Doses]:
    """Add `dose`·direction to the output of each named decoder layer, or where `directions` say, at every position.

    Raises `UserError` for a layer or module that the model has not, and for another width.
    """

    def shift(hidden: Tensor, direction: Tensor, doses: Doses) -> Tensor:
        found = doses.of(hidden) * direction
        return found if found.ndim == 3 else found.expand(1, 1, -1)

    return shifted(model, directions, dose, shift, model.dtype)


@contextmanager
def shifted(
    model: PreTrainedModel,
    directions: Mapping[int, Rows],
    dose: float | Float[Tensor, " b"],
    shift: Shift,
    dtype: torch.dtype,
    rows: int = 1,
) -> Iterator[Doses]:
    """Add what `shift` says to the output of each named decoder layer, or of its linear module that `directions` name, the
    directions in `dtype`; one at a time on a model. `rows`: how many vectors a layer's tensor holds.

    Raises `UserError` for a layer or module that the model has not, for another width and another number of rows.
    """
    at = places.of(directions).hook
    fits.vector(model, directions, rows)
    doses = Doses(float(dose) if isinstance(dose, (int, float)) else dose)
    with ExitStack() as stack:
        stack.enter_context(once(model, "added"))
        for index, direction in directions.items():
            placed = direction.to(model.device, dtype)

            def hook(_module, _args, output, placed=placed):
                if at:
                    found = shift(places.rows(output, at), placed.to(output.device), doses)
                    return output + found.to(output.dtype)
                hidden = stream(model, output)
                return moved(model, output, shift(hidden, placed.to(hidden.device), doses))

            stack.callback(places.module(model, index, at).register_forward_hook(hook).remove)
        yield doses


class Stop(Exception):
    """Ends a forward pass once every wanted layer was read."""


def captured(
    model: PreTrainedModel,
    wanted: list[int],
    *,
    where: Int[Tensor, " n"] | None = None,
    at: str = "",
    **inputs: Any,
) -> dict[int, Float[Tensor, "n d"]]:
    """fp32 output of each wanted layer, or of its linear module `at`, at the places `where` of the flattened batch, or at
    each row's end; nothing above the topmost is computed."""
    states: dict[int, Tensor] = {}
    with ExitStack() as stack:
        stack.enter_context(once(model, "captured"))
        for index in wanted:

            def hook(_module, _args, output, index=index):
                hidden = places.rows(output, at) if at else stream(model, output)
                found = hidden[:, -1] if where is None else hidden.flatten(0, 1)[where.to(hidden.device)]
                states[index] = found.float().to(model.device)
                if index == max(wanted):
                    raise Stop

            stack.callback(places.module(model, index, at).register_forward_hook(hook).remove)
        try:
            with torch.no_grad():
                body(model)(**inputs)
        except Stop:
            pass
    return states


Factors = Mapping[str, tuple[Float[Tensor, "r i"], Float[Tensor, "o r"]]]


@contextmanager
def adapted(model: PreTrainedModel, factors: Factors, scaling: float = 1.0) -> Iterator[None]:
    """Add scaling·B(A x) to each named linear module; factors stay fp32, products run in the model's type.

    Raises `UserError` for a module that the model has not, and for another shape.
    """
    fits.adapter(model, factors)
    with ExitStack() as stack:
        stack.enter_context(once(model, "adapted"))
        for name, (a, b) in factors.items():
            module = model.get_submodule(name)
            a, b = a.to(module.weight.device), b.to(module.weight.device)  # type: ignore[arg-type]
            cast = once_cast(a, b, scaling)

            def hook(_module, args, output, cast=cast):
                x = args[0]
                down, up = cast(x)
                return torch.addmm(output.flatten(0, -2), (x @ down).flatten(0, -2), up).view(output.shape)

            stack.callback(module.register_forward_hook(hook).remove)
        yield


Cast = Callable[[Tensor], tuple[Float[Tensor, "i r"], Float[Tensor, "r o"]]]


def once_cast(a: Float[Tensor, "r i"], b: Float[Tensor, "o r"], scaling: float) -> Cast:
    """A pair of factors in the type of what they are applied to, scaled and ready to multiply from the right; factors that
    aren't trained are cast once, and again when somebody changed them in place."""
    kept: dict[tuple[torch.dtype, int, int], tuple[Tensor, Tensor]] = {}

    def cast(x: Tensor) -> tuple[Tensor, Tensor]:
        key = x.dtype, a._version, b._version
        if key in kept:
            return kept[key]
        both = a.to(x).T, (b * scaling).to(x).T
        if not (a.requires_grad or b.requires_grad):
            kept.clear()
            kept[key] = both
        return both

    return cast


@contextmanager
def biased(model: PreTrainedModel, bias: Float[Tensor, " v"]) -> Iterator[None]:
    """Add the same fp32 vector to the final logits at every position."""
    placed = bias.to(model.device, torch.float32)
    with _edited(model, "biased", lambda logits: logits + placed.to(logits.dtype)):
        yield


@contextmanager
def cooled(model: PreTrainedModel, temperature: float) -> Iterator[None]:
    """Divide the final logits by `temperature`: below 1 the model is surer of everything, above 1 less sure."""
    if not temperature > 0:
        raise ValueError(f"temperature: above 0, found {temperature}")
    with _edited(model, "cooled", lambda logits: logits / temperature):
        yield


@contextmanager
def _edited(model: PreTrainedModel, kind: str, edit: Edit) -> Iterator[None]:
    """One edit of the final logits, in the model's own forward and in `models.head`. No loss by the library there."""

    def hook(_module, _args, output):
        if isinstance(output, tuple):
            return (edit(output[0]), *output[1:])
        if output.loss is not None:
            raise RuntimeError(
                "the library's loss is taken before the logits are edited; score with ground.scoring"
            )
        output.logits = edit(output.logits)
        return output

    with ExitStack() as stack:
        stack.enter_context(once(model, kind))
        stack.callback(model.register_forward_hook(hook).remove)
        edits(model).append(edit)
        stack.callback(edits(model).remove, edit)
        yield
