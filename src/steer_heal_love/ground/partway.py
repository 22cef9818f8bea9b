"""A decoder read from a layer on: the layers below give states that were computed before.

What trains, or steers, only from a layer on leaves the states that enter this layer as they were. Texts that are read
again and again, epoch by epoch, need their lower layers once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from steer_heal_love.ground import side_by_side
from steer_heal_love.ground.hooks import Stop
from steer_heal_love.ground.parts import giving, layers
from steer_heal_love.ground.reading import Trial, passes
from steer_heal_love.ground.side_by_side import Texts

_tried: WeakKeyDictionary[nn.Module, dict[int, bool]] = WeakKeyDictionary()


@torch.no_grad()
def entering(model: PreTrainedModel, first: int, given: Texts) -> Float[Tensor, "1 s d"]:
    """The states that enter decoder layer `first`, of texts side by side; nothing from there on is computed."""
    found: list[Tensor] = []

    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)
        raise Stop

    handle = layers(model)[first - 1].register_forward_hook(hook)
    try:
        side_by_side.states(model, given)
    except Stop:
        pass
    finally:
        handle.remove()
    return found[0]


@contextmanager
def from_layer(model: PreTrainedModel, first: int, entered: Float[Tensor, "1 s d"]) -> Iterator[None]:
    """The layers below `first` give what entered it, whatever they are asked."""
    with ExitStack() as stack:
        for layer in layers(model)[:first]:
            stack.enter_context(giving(layer, entered))
        yield


def states(
    model: PreTrainedModel, first: int, entered: Float[Tensor, "1 s d"], given: Texts
) -> Float[Tensor, "1 s d"]:
    """Final hidden states of texts side by side, from what entered layer `first`."""
    with from_layer(model, first, entered):
        return side_by_side.states(model, given)


def suits(model: PreTrainedModel, first: int) -> bool:
    """Whether a model may be read from this layer on; it can be read side by side. Tried on the first call, and kept.

    An architecture whose upper layers take more from below than one state a token can't.
    """
    verdicts = _tried.setdefault(model, {})
    if first not in verdicts:
        verdicts[first] = first > 0 and passes(lambda: alike(Trial(model), first))
    return verdicts[first]


@torch.no_grad()
def alike(trial: Trial, first: int) -> bool:
    """Whether rows read from a layer on have the states that each has when read whole and alone."""
    given = side_by_side.texts(trial.rows, trial.model.device)
    entered = entering(trial.model, first, given)
    found = states(trial.model, first, entered, given)[0].split(given.lengths)
    return all(trial.close(h, trial.alone(row)) for h, row in zip(found, trial.rows, strict=True))
