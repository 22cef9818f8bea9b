"""What writes to the residual stream is found by trying, and its weights are read off the module."""

from __future__ import annotations

import pytest
import torch
from tests.ground.test_operations import sliding
from tests.tiny_model import build_model, hooks_of
from transformers import Gemma2Config, Gemma2ForCausalLM, GPTNeoXConfig, GPTNeoXForCausalLM

from steer_heal_love.ground.hooks import adapted
from steer_heal_love.ground.writers import Writers, names, weight

SHAPE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "initializer_range": 0.25,
}


def neox():
    return GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE))


def gemma():
    return Gemma2ForCausalLM(Gemma2Config(**SHAPE, num_key_value_heads=4, head_dim=8))


FAMILIES = {
    "llama": (lambda: build_model(64, 2), ["self_attn.o_proj", "mlp.down_proj"]),
    "sliding": (sliding, ["self_attn.o_proj", "mlp.down_proj"]),
    "beside": (neox, ["attention.dense", "mlp.dense_4h_to_h"]),
    "normed": (gemma, ["self_attn.o_proj", "mlp.down_proj"]),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_writers_are_the_modules_whose_output_is_added_to_the_stream(family):
    build, want = FAMILIES[family]
    torch.manual_seed(0)
    net = build().eval().requires_grad_(False)
    for layer in (0, 2):
        assert names(net, layer) == want
    assert hooks_of(net) == 0


def test_a_gram_matrix_is_of_the_writers_beside_each_other_with_what_adapts_them():
    net = build_model(64, 2)
    block = net.model.layers[1]
    beside = torch.cat([block.self_attn.o_proj.weight, block.mlp.down_proj.weight], 1)
    plain = Writers(net)
    assert torch.allclose(plain.gram(1), beside @ beside.T, atol=1e-4)
    assert torch.allclose(plain.pooled(1), plain.gram(0) + plain.gram(1), atol=1e-4)
    a, b = torch.ones(2, 48), torch.ones(32, 2)
    with adapted(net, {"model.layers.1.mlp.down_proj": (a, b)}, 0.5):
        found = weight(block.mlp.down_proj)
    assert torch.allclose(found, block.mlp.down_proj.weight + 0.5 * b @ a, atol=1e-4)
