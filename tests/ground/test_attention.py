"""Grouped attention gives what transformers' own gives, values and gradients."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaForCausalLM

from steer_heal_love.ground import attention, decode, models
from steer_heal_love.ground.hooks import added
from tiny_model import build_model

PROMPTS = [(5, 9, 2, 40), (7, 3), (11, 60, 8, 8, 21, 33, 2), (50,)]


def batch():
    ids, mask = decode.left_pad(PROMPTS, "cpu")
    return {"input_ids": ids, "attention_mask": mask, "position_ids": decode.positions(mask)}


def gemma():
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=90,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.4,
        query_pre_attn_scalar=8,
        sliding_window=4,
        attn_logit_softcapping=2.0,
    )
    return Gemma2ForCausalLM(config).eval().requires_grad_(False)


def under(model, name, read):
    model.set_attn_implementation(name)
    return read(model)


@pytest.mark.parametrize("name", [attention.NAME, attention.FUSED])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_values_are_plain_attention_s(dtype, name):
    model = build_model(90, 2).to(dtype)
    plain, ours = (under(model, n, lambda m: m(**batch()).logits) for n in ("eager", name))
    assert model.config._attn_implementation == name
    real = batch()["attention_mask"].bool()
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype is torch.float32 else {"rtol": 0.02, "atol": 0.05}
    torch.testing.assert_close(ours[real], plain[real], **close)


def test_the_fused_kernel_s_values_are_plain_attention_s(monkeypatch):
    monkeypatch.setattr(attention, "cudnn_takes", lambda *_: True)
    monkeypatch.setattr(attention, "sdpa_kernel", lambda _backend: nullcontext())
    calls, fused = [], torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: calls.append(k) or fused(*a, **k)
    )
    model = build_model(90, 2)
    plain, ours = (under(model, n, lambda m: m(**batch()).logits) for n in ("eager", attention.FUSED))
    assert calls and all(k["enable_gqa"] for k in calls)
    real = batch()["attention_mask"].bool()
    torch.testing.assert_close(ours[real], plain[real], rtol=1e-5, atol=1e-5)


def test_the_gradients_are_plain_attention_s():
    model = build_model(90, 2)
    model.get_input_embeddings().weight.requires_grad_(True)

    def gradient(m):
        m.zero_grad()
        m(**batch()).logits.square().mean().backward()
        return m.get_input_embeddings().weight.grad.clone()

    plain, ours = (under(model, n, gradient) for n in ("eager", attention.NAME))
    assert plain.abs().max() > 0
    torch.testing.assert_close(ours, plain)


def test_an_architecture_whose_attention_does_more_keeps_its_own():
    """Gemma 2 caps its attention logits; leaving the cap out would be seen here, and is not left out."""
    model = gemma()
    plain, ours = (under(model, n, lambda m: m(**batch()).logits) for n in ("eager", attention.NAME))
    assert torch.equal(plain, ours)
    model.config.attn_logit_softcapping = None
    for layer in model.model.layers:
        layer.self_attn.attn_logit_softcapping = None
    assert not torch.allclose(model(**batch()).logits, plain, atol=1e-3)


def test_the_embedded_model_and_others_on_a_cpu_are_loaded_with_it(tmp_path, tok):
    build_model(len(tok), tok.eos_token_id).save_pretrained(tmp_path)
    tok.save_pretrained(tmp_path)
    model, _ = models.load(str(tmp_path), device="cpu", dtype="float32")
    assert isinstance(model, LlamaForCausalLM) and model.config._attn_implementation == attention.NAME


def test_attention_is_tried_before_anything_steers():
    """A model that steers five rows can't read the two of the trial, which would then say no for good."""
    model = models.placed(build_model(40, 2), "cpu")
    with added(model, {0: torch.zeros(model.config.hidden_size)}, torch.ones(5)):
        assert attention.ours(model)
