"""A model as it now is, as an ordinary model folder.

Out: safetensors, tokenizer, and the model's own generation settings word for word: the library refuses to save some that it
loads, such as a temperature without sampling.
"""

from __future__ import annotations

from pathlib import Path

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from steer_heal_love.ground import records


def save_whole(model: PreTrainedModel, tok: PreTrainedTokenizerBase, out: Path) -> None:
    """Write the folder. Raises `UserError` where it can't be written."""
    own = model.generation_config
    with records.writing(out):
        out.mkdir(parents=True, exist_ok=True)  # the library says nothing of a file in its place
        try:
            model.generation_config = GenerationConfig()
            model.save_pretrained(out, safe_serialization=True)
        finally:
            model.generation_config = own
        for file in out.glob("*.safetensors"):  # which the library makes for nobody else
            file.chmod((out / "config.json").stat().st_mode)
        tok.save_pretrained(out)
        if own is not None:
            (out / "generation_config.json").write_text(own.to_json_string(use_diff=True), encoding="utf-8")
