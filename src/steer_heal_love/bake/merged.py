"""Full weights with an adapter folded in, as an ordinary model folder.

In: a model, its tokenizer, an adapter, a folder. Out: the folder (`ground.saved`).
"""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.factored import needed
from steer_heal_love.ground.saved import save_whole
from steer_heal_love.ground.weights import folded
from steer_heal_love.nouns import Adapter


def save_merged(model: PreTrainedModel, tok: PreTrainedTokenizerBase, adapter: Adapter, out: Path) -> None:
    """Write the folder; the model is left as it was.

    Raises `UserError` where it can't be written, and for quantised weights, which can't hold the update.
    """
    if needed(model, [adapter]):
        raise UserError(
            "export --format merged: the base's weights are quantised, and rounding them again would lose part of the "
            "update. Take --format peft, which is exact beside them."
        )
    with folded(model, [adapter]):
        save_whole(model, tok, out)
