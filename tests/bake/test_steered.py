"""A steered model without hooks: the library alone loads the folder, and its logits are the steered ones; or a refusal."""

from __future__ import annotations

import pytest
import torch
from tests.tiny_model import build_model, build_tokenizer
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from steer_heal_love.bake.steered import save_steered
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.operations import Steering, foldings, operations, rows
from steer_heal_love.ground.places import Directions

IDS = torch.randint(4, 60, (2, 12), generator=torch.Generator().manual_seed(0))
SHAPE = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "initializer_range": 0.25,
}


@pytest.fixture(scope="module")
def tok():
    return build_tokenizer()


def neox():
    torch.manual_seed(0)
    return GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE)).eval().requires_grad_(False)


def llama():
    return build_model(400, 2)


@pytest.fixture(scope="module")
def steering():
    draw = torch.Generator().manual_seed(1)
    return Steering({i: torch.randn(32, generator=draw) for i in (1, 2)})


def test_every_operation_says_whether_it_folds():
    assert set(foldings) == set(operations)


def loads_as(folder, want):
    """The library loads a whole model from the folder, and it gives these logits."""
    found, told = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    torch.testing.assert_close(found(IDS).logits, want, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("build", [llama, neox], ids=["a switch adds biases", "has biases"])
def test_the_library_loads_the_steered_model(tok, steering, build, tmp_path):
    net = build()
    before = {n: p.clone() for n, p in net.named_parameters()}
    biased = {k: v for k, v in net.config.to_dict().items() if "bias" in k}
    with steering(net, 0.7):
        want = net(IDS).logits
    save_steered(net, tok, steering, 0.7, tmp_path / "out")
    loads_as(tmp_path / "out", want)
    after = dict(net.named_parameters())
    assert after.keys() == before.keys() and all(torch.equal(after[n], p) for n, p in before.items())
    assert {k: v for k, v in net.config.to_dict().items() if "bias" in k} == biased


@pytest.mark.parametrize("operation", sorted(set(operations) - {"add"}))
def test_what_depends_on_the_state_is_refused(tok, steering, operation, tmp_path):
    for hook in ("", "mlp.down_proj"):
        if hook and foldings[operation].at_linear:
            continue
        with pytest.raises(UserError, match=f"{operation} doesn't fold"):
            save_steered(llama(), tok, at(operation, hook), 0.7, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def at(operation, hook, width=32):
    """What the operation takes, at two layers of this module."""
    draw, many = torch.Generator().manual_seed(1), rows.get(operation, 1)
    shape = (many, width) if many > 1 else (width,)
    return Steering(Directions({i: torch.randn(shape, generator=draw) for i in (1, 2)}, hook=hook), operation)


AFFINE = sorted(o for o in foldings if foldings[o].at_linear)


@pytest.mark.parametrize("operation", AFFINE)
@pytest.mark.parametrize(
    ("build", "hook", "width"),
    [
        (llama, "mlp.down_proj", 32),
        (llama, "self_attn.v_proj", 16),
        (neox, "mlp.dense_h_to_4h", 48),
        (neox, "attention.dense", 32),
    ],
)
def test_what_is_affine_at_a_linear_module_goes_into_its_weights(
    tok, operation, build, hook, width, tmp_path
):
    net, steering = build(), at(operation, hook, width)
    before = {n: p.clone() for n, p in net.named_parameters()}
    plain = net(IDS).logits
    with steering(net, 0.7):
        want = net(IDS).logits
    assert (want - plain).abs().max() > 0.1
    save_steered(net, tok, steering, 0.7, tmp_path / "out")
    loads_as(tmp_path / "out", want)
    after = dict(net.named_parameters())
    assert after.keys() == before.keys() and all(torch.equal(after[n], p) for n, p in before.items())


def test_a_projection_at_a_module_without_a_bias_needs_none_and_a_constant_does(tok, tmp_path):
    torch.manual_seed(0)
    net = mistral().eval().requires_grad_(False)
    save_steered(net, tok, at("ablate", "mlp.down_proj"), 0.7, tmp_path / "out")
    assert not any(
        "bias" in n for n, _ in AutoModelForCausalLM.from_pretrained(tmp_path / "out").named_parameters()
    )
    with pytest.raises(UserError, match="has no bias"):
        save_steered(net, tok, at("add", "mlp.down_proj"), 0.7, tmp_path / "other")


def mistral():
    return MistralForCausalLM(MistralConfig(**SHAPE, num_key_value_heads=2, head_dim=8))


def gemma():
    # Its writers could be given a bias by hand; what they give is normalised before it reaches the stream.
    net = Gemma2ForCausalLM(Gemma2Config(**SHAPE, num_key_value_heads=2, head_dim=8))
    for block in net.model.layers:
        block.mlp.down_proj.bias = torch.nn.Parameter(torch.zeros(32))
    return net


@pytest.mark.parametrize(("build", "said"), [(mistral, "has no bias"), (gemma, "normalised")])
def test_a_model_that_cannot_hold_the_vector_is_refused(tok, steering, build, said, tmp_path):
    torch.manual_seed(0)
    net = build().eval().requires_grad_(False)
    names = [n for n, _ in net.named_parameters()]
    with pytest.raises(UserError, match=said):
        save_steered(net, tok, steering, 0.7, tmp_path / "out")
    assert not (tmp_path / "out").exists() and names == [n for n, _ in net.named_parameters()]
