"""A steered model as an ordinary model folder, without hooks: where steering is a constant, its vector becomes a bias; at
the output of linear modules any affine operation goes into their weights.

In: a model, its tokenizer, a steering, a dose, a folder. Out: the folder, which the library loads as it is. What a steering
operation declares (`Folding`) says whether it can be so; the rest is asked of the model (`ground.writer_bias`,
`ground.linear_fold`).
"""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steer_heal_love.ground import places
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.linear_fold import in_modules
from steer_heal_love.ground.operations import Steering, foldings
from steer_heal_love.ground.saved import save_whole
from steer_heal_love.ground.writer_bias import in_biases


def save_steered(
    model: PreTrainedModel, tok: PreTrainedTokenizerBase, steering: Steering, dose: float, out: Path
) -> None:
    """Write the folder; the model is left as it was.

    Raises `UserError` for an operation that doesn't fold into weights, for a model that can't hold the vector as biases, for
    a layer or a width that the model has not, and where the folder can't be written.
    """
    folding, hook = foldings[steering.operation], places.of(steering.directions).hook
    if not (folding.at_linear if hook else folding.exact):
        raise UserError(
            f"the steering operation {steering.operation} doesn't fold into weights: {folding.why}. Export the healed model "
            "instead, or steer with hooks."
        )
    shifts = {i: dose * v.float() for i, v in steering.directions.items()}
    with in_modules(model, steering, dose) if hook else in_biases(model, shifts):
        save_whole(model, tok, out)
