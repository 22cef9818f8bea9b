"""Every way a model folder can be wrong ends in one message that names it; what is only unusual loads."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from families import matrix, zoo
from steer_heal_love.ground import checkpoint, loading, models
from steer_heal_love.ground.devices import DTYPES
from steer_heal_love.ground.errors import UserError
from tiny_model import build_model, build_tokenizer


@pytest.fixture
def folder(tmp_path, tok):
    """A whole model on disk, to break one thing at a time."""
    build_model(len(tok), tok.eos_token_id).save_pretrained(tmp_path / "m")
    tok.save_pretrained(tmp_path / "m")
    return tmp_path / "m"


def edit(file, **change):
    file.write_text(json.dumps(json.loads(file.read_text()) | change))


def rewritten(folder, change):
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def load(folder, **how):
    return models.load(str(folder), device="cpu", dtype=how.pop("dtype", "float32"), **how)


WEIGHTS = {
    "lost tensor": (
        lambda t: {k: v for k, v in t.items() if "2.mlp.down" not in k},
        "layers.2.mlp.down_proj",
    ),
    "lost head": (lambda t: {k: v for k, v in t.items() if k != "lm_head.weight"}, "lm_head.weight"),
    "wrong prefix": (
        lambda t: {f"base_model.model.{k}": v for k, v in t.items()},
        "under other names: base_model",
    ),
    "another shape": (
        lambda t: t | {"model.norm.weight": torch.ones(7)},
        r"\[7\] in the file, \[32\] in the model",
    ),
    "not a number": (
        lambda t: t | {"model.norm.weight": torch.full((32,), torch.nan)},
        "model.norm.weight holds NaN",
    ),
    "a bias too many": (
        lambda t: t | {"model.layers.0.self_attn.q_proj.bias": torch.ones(32)},
        "no place for",
    ),
    "a layer too many": (
        lambda t: t | {"model.layers.9.mlp.up_proj.weight": torch.ones(48, 32)},
        "no place for",
    ),
    "a LoRA inside": (
        lambda t: t | {"x.q_proj.lora_A.weight": torch.ones(2, 32)},
        "was saved: x.q_proj.lora_A",
    ),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_weights_that_are_not_the_models_are_refused_by_name(folder, case):
    change, said = WEIGHTS[case]
    rewritten(folder, change)
    with pytest.raises(UserError, match=said):
        load(folder)


def test_weights_of_what_a_language_model_lacks_are_left_out_and_said(folder):
    rewritten(folder, lambda t: t | {"vision_tower.patch.weight": torch.ones(3)})
    model, _ = load(folder)
    assert "vision_tower.patch.weight" in " ".join(loading.notes(model))


def test_a_tied_head_is_not_a_lost_one(tmp_path, tok):
    config = build_model(len(tok), tok.eos_token_id).config
    config.tie_word_embeddings = True
    tied = AutoModelForCausalLM.from_config(config).to(torch.float32)
    tied.save_pretrained(tmp_path)
    tok.save_pretrained(tmp_path)
    model, _ = load(tmp_path)
    assert model.lm_head.weight is model.model.embed_tokens.weight and not loading.notes(model)


FILES = {
    "truncated": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:900]),
        "no model loads",
    ),
    "broken json": (lambda f: (f / "config.json").write_text("{"), "config.json: not JSON"),
    "broken settings": (lambda f: (f / "generation_config.json").write_text("[]"), "expected a JSON object"),
    "broken tokenizer": (lambda f: (f / "tokenizer.json").write_text('{"model": 3}'), "no model loads"),
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json there"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no .safetensors there"),
    "pickle": (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pickle files"),
    "unknown type": (lambda f: edit(f / "config.json", model_type="llama9"), "llama9"),
    "text for a number": (lambda f: edit(f / "config.json", hidden_size="wide"), "no model loads"),
    "own code": (
        lambda f: edit(f / "config.json", model_type="x", auto_map={"AutoConfig": "a.B"}),
        "code of its own",
    ),
    "short context": (
        lambda f: edit(f / "config.json", max_position_embeddings=24),
        "its context is 24 tokens",
    ),
    "gptq": (
        lambda f: edit(f / "config.json", quantization_config={"quant_method": "gptq", "bits": 4}),
        r"quantised \(gptq\)",
    ),
    "an adapter beside": (lambda f: (f / "adapter_config.json").write_text("{}"), "a model and an adapter"),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_are_not_a_models_are_refused_in_one_message(folder, case):
    change, said = FILES[case]
    change(folder)
    with pytest.raises(UserError, match=said):
        load(folder)


def test_an_adapter_in_place_of_a_model_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "the/base"}')
    with pytest.raises(UserError, match=r"that is an adapter.*--adapter FOLDER.*the/base"):
        load(tmp_path)


def test_a_path_and_a_file_are_told_from_a_hub_id(folder):
    with pytest.raises(UserError, match="there is no such folder"):
        load(folder / "nowhere")
    with pytest.raises(UserError, match="is a file"):
        load(folder / "config.json")


def test_four_bits_need_their_package(folder, monkeypatch):
    edit(folder / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    monkeypatch.setattr(checkpoint, "find_spec", lambda _name: None)
    with pytest.raises(UserError, match=r"needs bitsandbytes and accelerate: pip install"):
        load(folder)


def test_rows_padded_past_the_tokenizer_load_and_missing_rows_do_not(tmp_path, tok):
    for name, rows in (("more", len(tok) + 60), ("fewer", len(tok) - 4)):
        build_model(rows, tok.eos_token_id).save_pretrained(tmp_path / name)
        tok.save_pretrained(tmp_path / name)
    load(tmp_path / "more")
    with pytest.raises(UserError, match=f"{len(tok)} tokens, the embedding {len(tok) - 4} rows"):
        load(tmp_path / "fewer")


def test_a_token_for_images_without_a_row_is_only_said(tmp_path, tok):
    wide = build_tokenizer()
    wide.add_tokens(["<image_soft_token>"])
    build_model(len(tok), tok.eos_token_id).save_pretrained(tmp_path)
    wide.save_pretrained(tmp_path)
    model, _ = load(tmp_path)
    assert "<image_soft_token>" in " ".join(loading.notes(model))


def test_shards_load_and_a_missing_one_is_named(folder):
    model, _ = load(folder)
    (folder / "model.safetensors").unlink()
    build_model(model.config.vocab_size, 2).save_pretrained(folder, max_shard_size="30KB")
    load(folder)
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(UserError, match=shard.name):
        load(folder)


def test_an_encoder_is_no_chat_model(tmp_path, tok):
    config = AutoConfig.for_model(
        "bert",
        vocab_size=len(tok),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        initializer_range=0.25,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tok.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="an encoder"):
        load(tmp_path)


def test_a_choice_of_keys_that_later_text_changes_is_refused(tmp_path, monkeypatch):
    """Two heads that score leave many keys at nought, and a tie falls otherwise in a longer row."""
    few = zoo.ZOO["deepseek-v3.2"]
    monkeypatch.setitem(zoo.ZOO, "few", replace(few, settings=few.settings | {"index_n_heads": 2}))
    with pytest.raises(UserError, match="attends to the 16 likeliest tokens"):
        matrix.loaded("few", tmp_path)


def test_the_dtypes_that_are_named_are_those_that_load(folder):
    ids = torch.arange(3, 40)[None]
    for name in DTYPES[1:]:
        model = load(folder, dtype=name)[0]
        with torch.no_grad():
            assert model.dtype == getattr(torch, name) and model(input_ids=ids).logits.isfinite().all()
    with pytest.raises(UserError, match=r"dtype 'int8': expected one of auto, float32"):
        load(folder, dtype="int8")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_every_number_type_on_disk_is_read_as_the_library_reads_it(tmp_path, tok, kind, tied):
    """What no file holds, such as rotary frequencies, stays in fp32, also where the weights do not."""
    model = build_model(len(tok), tok.eos_token_id)
    model.config.tie_word_embeddings = tied
    AutoModelForCausalLM.from_config(model.config).to(kind).save_pretrained(tmp_path)
    tok.save_pretrained(tmp_path)
    ids = torch.arange(3, 90)[None]
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ours, _ = load(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, rtol=1e-4, atol=1e-5)
    half, _ = load(tmp_path, dtype="bfloat16")
    assert torch.equal(half.model.rotary_emb.inv_freq, theirs.model.rotary_emb.inv_freq)


def test_numbers_too_large_for_the_type_are_refused(folder):
    rewritten(folder, lambda t: t | {"model.norm.weight": torch.full((32,), 1e6)})
    load(folder)
    with pytest.raises(UserError, match="wider type"):
        load(folder, dtype="float16")


def test_a_model_ends_where_its_template_does_without_any_eos(folder):
    edit(folder / "config.json", eos_token_id=None)
    (folder / "generation_config.json").unlink()
    edit(folder / "tokenizer_config.json", eos_token=None, pad_token=None)
    from steer_heal_love.ground.chat import end_of_turn_ids

    model, tok = load(folder)
    assert tok.convert_ids_to_tokens(sorted(end_of_turn_ids(model, tok))) == ["<|im_end|>"]


def test_odd_generation_settings_travel_into_merged_weights(folder, tmp_path, random_adapter):
    from steer_heal_love.bake.merged import save_merged

    file = folder / "generation_config.json"
    edit(file, do_sample=False, temperature=0.9, top_k=5, repetition_penalty=1.3)
    model, tok = load(folder)
    adapter = random_adapter(model, 1)
    save_merged(model, tok, adapter, tmp_path / "merged")
    found = json.loads((tmp_path / "merged/generation_config.json").read_text())
    assert (found["temperature"], found["top_k"], found["repetition_penalty"]) == (0.9, 5, 1.3)
    rights = {f.stat().st_mode for f in (tmp_path / "merged").iterdir()}
    assert len(rights) == 1, "weights are for whom the other files are for"
    merged, _ = load(tmp_path / "merged")
    name = next(iter(adapter.factors))
    a, b = adapter.factors[name]
    exact = model.get_submodule(name).weight + adapter.scaling * b @ a
    torch.testing.assert_close(merged.get_submodule(name).weight, exact)
    shutil.rmtree(tmp_path / "merged")


def test_a_typo_of_a_model_that_is_here_is_told_at_once(monkeypatch):
    """A hub would be asked again and again, for most of a minute where there is none."""
    asked = []
    monkeypatch.setattr(checkpoint, "find_adapter_config_file", asked.append)
    with pytest.raises(UserError, match=r"no model 'smollm'; did you mean 'smollm2'\?"):
        checkpoint.refuse_folder("smollm")
    checkpoint.refuse_folder("gpt2")
    assert asked == ["gpt2"]
