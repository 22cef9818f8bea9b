"""Full weights with an adapter folded in, as an ordinary model folder.

In: a model, its tokenizer, an adapter, a folder. Out: safetensors, tokenizer, and the base's own generation settings
word for word: the library refuses to save some that it loads, such as a temperature without sampling.
"""

from __future__ import annotations

from pathlib import Path

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from steer_heal_love.ground import records
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.factored import needed
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


def save_whole(model: PreTrainedModel, tok: PreTrainedTokenizerBase, out: Path) -> None:
    """The model as it now is. Raises `UserError` where the folder can't be written."""
    own = model.generation_config
    with records.writing(out):
        out.mkdir(parents=True, exist_ok=True)  # the library says nothing of a file in its place
        try:
            model.generation_config = GenerationConfig()
            model.save_pretrained(out, safe_serialization=True)
        finally:
            model.generation_config = own
        tok.save_pretrained(out)
        if own is not None:
            (out / "generation_config.json").write_text(own.to_json_string(use_diff=True), encoding="utf-8")
