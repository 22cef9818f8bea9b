"""Does what comes from a file fit this model? Vectors by layer and width, adapters by module and shape.

In: a model, and directions or factors. Out: nothing, or one `UserError` that names a few of the misfits.
"""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from steer_heal_love.ground import places
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.linear import shape
from steer_heal_love.ground.parts import layers
from steer_heal_love.ground.places import Rows
from steer_heal_love.ground.shown import shown

SHOWN = 4
"""misfits named; the rest are counted"""


def vector(model: PreTrainedModel, directions: Mapping[int, Rows], rows: int = 1) -> None:
    """Raise unless every direction has a layer of the model, and its width where it acts; and `rows` vectors a layer."""
    depth, hook = len(layers(model)), places.of(directions).hook
    wrong = []
    for i, v in directions.items():
        if not 0 <= i < depth:
            wrong.append(f"layer {i}: there are {depth} layers, from 0")
            continue
        width = places.width(model, i, hook)
        if tuple(v.shape) != ((width,) if rows == 1 else (rows, width)):
            many = f" and {rows} rows" if rows > 1 else ""
            wrong.append(f"layer {i}: {tuple(v.shape)} values for a width of {width}{many}")
    refuse(wrong, f"this steering vector is not of {type(model).__name__}")


def adapter(
    model: PreTrainedModel, factors: Mapping[str, tuple[Float[Tensor, "r i"], Float[Tensor, "o r"]]]
) -> None:
    """Raise unless every module of the adapter is a linear one of the model, and of that shape."""
    modules, wrong = dict(model.named_modules()), []
    for name, (a, b) in factors.items():
        wanted = (b.shape[0], a.shape[1])
        module = modules.get(name)
        weight = getattr(module, "weight", None)
        if weight is None:
            wrong.append(f"{name}: no such module")
        elif (found := shape(module) if weight.ndim == 2 else tuple(weight.shape)) != wanted:
            wrong.append(f"{name}: of shape {found}, the adapter's is {wanted}")
    refuse(wrong, f"this adapter is not of {type(model).__name__}")


def refuse(wrong: list[str], what: str) -> None:
    if not wrong:
        return
    more = [f"and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else []
    lines = "\n".join(f"  {shown(w)}" for w in wrong[:SHOWN] + more)
    raise UserError(f"{what}:\n{lines}\nGive the model that it was made on.")
