"""What a steering direction does to the hidden state at run time. How the direction was found is the room `vector`.

In: a hidden state h, a direction v, a dose. Out: the shift that is added to h. An operation is one file here with
`@operations(name)`. It acts on each position alone, and dose 0 gives a shift of zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from steer_heal_love.ground import fits
from steer_heal_love.ground.hooks import Doses, once
from steer_heal_love.ground.parts import layers, moved, stream
from steer_heal_love.ground.registry import Registry

Operation = Callable[[Float[Tensor, "b t d"], Float[Tensor, " d"], Tensor | float], Float[Tensor, "b t d"]]
operations: Registry[Operation] = Registry("steering operation", __name__)


@contextmanager
def operated(
    model: PreTrainedModel,
    operation: str,
    directions: Mapping[int, Float[Tensor, " d"]],
    dose: float | Float[Tensor, " b"],
) -> Iterator[Doses]:
    """Apply `operation` with these directions to the output of each named decoder layer, at every position.

    Raises `UserError` for an unknown operation, a layer that the model has not, and another width. `added` and
    `operated` exclude each other on one model.
    """
    shift_of = operations[operation]
    fits.vector(model, directions)
    doses = Doses(float(dose) if isinstance(dose, (int, float)) else dose)
    blocks = layers(model)
    with ExitStack() as stack:
        stack.enter_context(once(model, "added"))
        for index, direction in directions.items():
            placed = direction.to(model.device).float()

            def hook(_module, _args, output, placed=placed):
                hidden = stream(model, output)
                shift = shift_of(hidden.float(), placed, doses.of(hidden.float()))
                return moved(model, output, shift.to(hidden))

            stack.callback(blocks[index].register_forward_hook(hook).remove)
        yield doses
