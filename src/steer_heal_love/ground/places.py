"""Where steering acts in a decoder layer: on the residual stream, or at the output of one of the layer's linear modules.

In: a layer's number and the name of a linear module inside every layer, such as `mlp.down_proj`; the empty name stands for
what the layer itself gives out, which is the residual stream. Out: the module to hook, and its width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from steer_heal_love.ground import linear
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.parts import layers
from steer_heal_love.ground.shown import shown

Rows = Float[Tensor, "*k d"]
"""what an operation takes for one layer: a direction [d], or several rows [k, d]"""


class Directions(dict[int, Rows]):
    """What steers, by layer number (from 0), with what it must be applied by.

    `hook`: the linear module of each layer at whose output it acts; empty for the residual stream. `operation`: the one
    operation that takes these tensors; empty where they are directions, which every operation for directions takes.
    """

    def __init__(
        self,
        by_layer: Mapping[int, Tensor] | Iterable[tuple[int, Tensor]] = (),
        *,
        hook: str = "",
        operation: str = "",
    ):
        super().__init__(by_layer)
        self.hook, self.operation = hook, operation

    def like(self, by_layer: Mapping[int, Tensor]) -> Directions:
        """Other tensors at the same place, for the same operation."""
        return Directions(by_layer, hook=self.hook, operation=self.operation)


def of(directions: Mapping[int, Rows]) -> Directions:
    """With their place; a plain mapping acts on the residual stream, and is of directions."""
    return directions if isinstance(directions, Directions) else Directions(directions)


def module(model: PreTrainedModel, index: int, hook: str) -> nn.Module:
    """What to hook in a decoder layer. Raises `UserError` where that layer has no linear module of the name."""
    block = layers(model)[index]
    if not hook:
        return block
    named = dict(block.named_modules())
    if hook in named and linear.plain(named[hook]):
        return named[hook]
    there = [name for name, m in named.items() if linear.plain(m)]
    raise UserError(
        f"{type(model).__name__}: decoder layer {index} has no linear module {shown(hook)!r:.80}; it has "
        f"{', '.join(there) or 'none'}. Give one of these as vector.hook, or nothing for the residual stream."
    )


def width(model: PreTrainedModel, index: int, hook: str) -> int:
    """How many values a position has there."""
    if not hook:
        return int(model.config.get_text_config(decoder=True).hidden_size)
    return linear.shape(module(model, index, hook))[0]


def rows(output: Tensor, hook: str) -> Float[Tensor, "b s d"]:
    """What a linear module gives, where it is called on rows of positions. Raises `UserError` where it isn't."""
    if output.ndim == 3:
        return output
    raise UserError(
        f"{shown(hook)}: it gives values of shape {tuple(output.shape)}, not rows of positions (an expert sees some tokens "
        "only). Give another module as vector.hook."
    )
