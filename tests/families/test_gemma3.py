"""Gemma 3 as its hub id gives it, text beside a vision tower: loaded, steered and healed whole, its tower untouched."""

from __future__ import annotations

import json
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file, save_file

from families import checks, matrix, zoo
from steer_heal_love import bake, loop
from steer_heal_love.ground import loading, models
from steer_heal_love.ground.chat import end_of_turn_ids

HUB_ID = "google/gemma-3-4b-it"
COMMIT = "a" * 40
LITTLE = matrix.RUN | {
    "vector": {"contexts": 2},
    "heal": matrix.RUN["heal"] | {"anchor_prompts": 2},
    "eval": matrix.RUN["eval"] | {"instruments": ["neutral"], "neutral_prompts": 2},
}
OLD = ("rope_parameters", "layer_types", "_sliding_window_pattern", "use_bidirectional_attention", "dtype")
"""what the hub's configuration, written by transformers 4.50, doesn't hold"""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache of the hub with a tiny model under Gemma 3's own id, its files laid out and named as that model's are."""
    model, tok = zoo.build("gemma3-multimodal")
    place = tmp_path / f"models--{HUB_ID.replace('/', '--')}"
    folder = place / "snapshots" / COMMIT
    model.save_pretrained(folder)
    tok.save_pretrained(folder)
    (place / "refs").mkdir()
    (place / "refs/main").write_text(COMMIT)
    as_of_4_50(folder, tok.eos_token_id)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return folder


def as_of_4_50(folder, end):
    file = folder / "config.json"
    config = json.loads(file.read_text())
    text = {k: v for k, v in config["text_config"].items() if k not in OLD}
    text |= {
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "num_hidden_layers": 6,
        "sliding_window_pattern": 6,
    }
    file.write_text(json.dumps(config | {"text_config": text, "torch_dtype": "bfloat16"}))
    (folder / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [1, end], "top_k": 64, "top_p": 0.95})
    )
    weights = load_file(folder / "model.safetensors")
    layers = {k: v for k, v in weights.items() if ".layers.0." in k and k.startswith("language_model")}
    more = {k.replace(".0.", f".{i}.", 1): v.clone() for k, v in layers.items() for i in (4, 5)}
    tower = {k.replace("vision_tower.", "vision_tower.vision_model."): v for k, v in (weights | more).items()}
    save_file(
        {k: v.bfloat16() for k, v in tower.items()}, folder / "model.safetensors", metadata={"format": "pt"}
    )


def test_the_hub_id_loads_every_weight_from_the_cache_and_reads_long_prompts_as_rows_alone(hub):
    model, tok = models.load(HUB_ID, device="cpu", dtype="float32")
    assert type(model).__name__ == "Gemma3ForConditionalGeneration"
    assert not any("weights" in note for note in loading.notes(model))
    text = model.config.get_text_config()
    assert text.rope_parameters["full_attention"]["factor"] == 8 and text.layer_types[-1] == "full_attention"
    saved = load_file(hub / "model.safetensors")
    tower = [w for n, w in model.state_dict().items() if n.endswith("patch_embedding.weight")]
    torch.testing.assert_close(
        tower, [saved["vision_tower.vision_model.embeddings.patch_embedding.weight"].float()]
    )
    assert {1, tok.eos_token_id} <= end_of_turn_ids(model, tok)
    rows = checks.Rows(model, tok)
    assert checks.likelihood(rows) < checks.CLOSE and checks.answers(rows) == 0


def test_two_rounds_adapt_the_text_alone_and_are_exported_as_the_live_model(hub, tmp_path):
    with patch("steer_heal_love.report.write"), patch("steer_heal_love.ground.records.release_memory"):
        done = loop.run(None, model=HUB_ID, out=str(tmp_path / "runs"), **LITTLE)
    adapter = bake.load_peft(done.folder.path / "adapter")
    assert adapter.factors and all("language_model" in name for name in adapter.factors)
    case = matrix.opened("gemma3-multimodal", hub)
    assert matrix.departs(case, adapter, merged=True) == ""
    (merged,) = hub.parent.glob("*/merged")
    before, after = (
        {
            n: w
            for n, w in matrix.library(case.name, at).state_dict().items()
            if "vision" in n or "projector" in n
        }
        for at in (hub, merged)
    )
    assert (
        before.keys() == after.keys() and all(torch.equal(w, after[n]) for n, w in before.items()) and before
    )
