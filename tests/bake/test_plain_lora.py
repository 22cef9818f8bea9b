"""Adapters from other hands: PEFT's own logits, or refused with what keeps them from being a plain LoRA."""

from __future__ import annotations

import json

import peft
import pytest
import torch
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from fuzz import fuzz
from steer_heal_love import bake
from steer_heal_love.bake import plain_lora
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.ground.weights import folded
from tiny_model import build_model

IDS = torch.arange(3, 15)[None]


@torch.no_grad()
def logits(model):
    return model(IDS).logits


def trained(folder, **how):
    """A PEFT adapter as if trained, saved; and the logits that PEFT itself gives with it on a fresh base."""
    torch.manual_seed(1)
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]} | how)
    wrapped = peft.get_peft_model(build_model(300, 2), config)
    with torch.no_grad():
        for p in wrapped.parameters():
            if p.requires_grad:
                p.add_(0.05 * torch.randn_like(p))
    wrapped.save_pretrained(folder)
    return logits(peft.PeftModel.from_pretrained(build_model(300, 2), str(folder)))


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 2}},
        {"alpha_pattern": {"q_proj": 32}},
        {"init_lora_weights": False},
        {
            "rank_pattern": {"layers.1.self_attn.q_proj": 2, "v_proj": 3},
            "alpha_pattern": {"v_proj": 1},
            "use_rslora": True,
        },
        {"target_modules": "all-linear"},
        {"layers_to_transform": [1, 3]},
        {"init_lora_weights": "gaussian"},
    ],
    ids=str,
)
def test_plain_lora_is_applied_as_peft_applies_it(tmp_path, how):
    theirs, base = trained(tmp_path, **how), build_model(300, 2)
    adapter = bake.load_peft(tmp_path)
    with adapted(base, adapter.factors, adapter.scaling):
        assert torch.allclose(logits(base), theirs, atol=1e-3)
    with folded(base, [adapter]):
        assert torch.allclose(logits(base), theirs, atol=1e-3)
    assert not torch.allclose(logits(base), theirs, atol=1e-2)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"init_lora_weights": "olora"}, "init_lora_weights"),
        ({"lora_bias": True}, "lora_bias"),
        ({"bias": "all"}, "bias"),
        ({"bias": "lora_only"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "embed_tokens"),
        ({"target_modules": ["q_proj", "lm_head"]}, "lm_head: lies outside"),
        ({"trainable_token_indices": [5, 6]}, "trainable_token_indices"),
        ({"alora_invocation_tokens": [7], "task_type": "CAUSAL_LM"}, "alora_invocation_tokens"),
        ({"layer_replication": [[0, 3], [2, 5]]}, "layer_replication"),
    ],
    ids=lambda v: str(v)[:50],
)
def test_what_is_more_than_a_plain_lora_is_refused_by_name(tmp_path, how, words):
    trained(tmp_path, **how)
    with pytest.raises(UserError, match="plain LoRA is needed") as e:
        bake.load_peft(tmp_path)
    assert words in str(e.value)
    in_settings = words in json.loads((tmp_path / "adapter_config.json").read_text())
    assert ("merge_and_unload" in str(e.value)) == in_settings, (
        "what merging can't mend is not told to be merged"
    )


def test_another_kind_of_adapter_is_named_and_nothing_else_is_said_of_it(tmp_path):
    (tmp_path / "adapter_config.json").write_text(
        '{"peft_type": "IA3", "feedforward_modules": ["down_proj"]}'
    )
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"found peft_type: 'IA3', another kind of adapter\. .*merge_and_unload"
    ):
        bake.load_peft(tmp_path)


@pytest.fixture
def saved(model, random_adapter, tmp_path):
    bake.save_peft(random_adapter(model, 1), tmp_path / "a", base_model="tiny")
    return tmp_path / "a"


def changed(folder, **settings):
    file = folder / plain_lora.CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"r": 64},
        {"r": 0},
        {"r": True},
        {"r": "4"},
        {"r": 10**30},
        {"lora_alpha": "8"},
        {"lora_alpha": None},
        {"peft_type": "IA3"},
        {"peft_type": ["LORA"]},
        {"use_rslora": "yes"},
        {"rank_pattern": {"(a+)+$": 2}},
        {"alpha_pattern": {"q_proj": True}},
        {"alpha_pattern": []},
        {"some_new_method": True},
        {"target_modules": ["q_proj"]},
        {"exclude_modules": ["q_proj"]},
        {"exclude_modules": ".*q_proj"},
        {"layers_to_transform": [1]},
        {"init_lora_weights": 1},
        {"bias": True},
        {"loftq_config": {"loftq_bits": 4}},
    ],
    ids=str,
)
def test_a_setting_that_the_factors_do_not_bear_out_or_nobody_knows_is_refused(saved, settings):
    changed(saved, **settings)
    with pytest.raises(UserError, match="plain LoRA"):
        bake.load_peft(saved)


def test_settings_that_are_off_or_only_say_where_it_comes_from_are_fine(saved):
    before = bake.load_peft(saved)
    changed(
        saved,
        use_dora=False,
        some_new_method=None,
        another={},
        loftq_config={},
        revision="main",
        exclude_modules=["lm_head"],
        peft_version="9.9",
    )
    assert bake.load_peft(saved).scaling == before.scaling


def tensors(folder, change):
    file = str(folder / plain_lora.WEIGHTS)
    found = load_file(file)
    change(found)
    save_file(found, file, metadata={"format": "pt"})


A = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop(A), "lora_A is missing"),
        (lambda t: t[A].__setitem__((0, 0), float("nan")), "not finite"),
        (lambda t: t.clear(), "no factors"),
        (
            lambda t: t.update({A.replace("lora_A.weight", "lora_magnitude_vector"): torch.ones(3)}),
            "no factor of a linear module",
        ),
        (lambda t: t.update({A: t[A][None].clone()}), "don't multiply"),
        (lambda t: t.update({A: t[A][:2].clone()}), "don't multiply"),
        (lambda t: t.update({"odd\x1b[2J": torch.ones(3)}), "U\\+001B"),
    ],
)
def test_a_tensor_that_does_not_belong_is_named(saved, change, words):
    tensors(saved, change)
    with pytest.raises(UserError, match=words) as e:
        bake.load_peft(saved)
    assert "\x1b" not in str(e.value)


@pytest.mark.parametrize("size", [0, 5, 200])
@pytest.mark.parametrize("name", [plain_lora.CONFIG, plain_lora.WEIGHTS])
def test_a_file_cut_short_is_a_user_error(saved, name, size):
    (saved / name).write_bytes((saved / name).read_bytes()[:size])
    with pytest.raises(UserError, match=name):
        bake.load_peft(saved)


def test_an_adapter_of_another_model_is_refused_with_a_few_of_its_modules(saved, tok):
    adapter = bake.load_peft(saved)
    shallow = build_model(len(tok), 2, depth=2)
    for context in (lambda: adapted(shallow, adapter.factors), lambda: folded(shallow, [adapter])):
        with pytest.raises(UserError, match="not of LlamaForCausalLM") as e, context():
            pass
        assert "no such module" in str(e.value) and "more" in str(e.value)


def test_an_adapter_that_changes_nothing_is_known(model, random_adapter):
    assert bake.is_nothing(random_adapter(model, 1, size=0.0)) and not bake.is_nothing(
        random_adapter(model, 1)
    )


@fuzz(
    config=st.dictionaries(
        st.sampled_from([*plain_lora.KNOWN, *plain_lora.OFF, "x"]),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(),
            st.text(max_size=4),
            st.lists(st.integers(), max_size=2),
            st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
        ),
        max_size=8,
    )
)
def test_no_settings_are_anything_but_fine_or_listed(config):
    wrong = plain_lora.mistakes(config)
    assert all(isinstance(w, str) for w in wrong)
    if not wrong:
        assert plain_lora.settings(config).scaling("model.layers.0.mlp.up_proj") is not None
