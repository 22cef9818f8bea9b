import pytest
import torch
from torch import nn

from steer_heal_love.ground.packed import OPS, PackedLinear, pack
from steer_heal_love.ground.weights import put

packs = pytest.mark.skipif(
    not all(hasattr(torch.ops.mkldnn, op) for op in OPS) or not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason="needs a torch and a processor that multiply packed bf16",
)


def linear(bias: bool = False) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(64, 96, bias=bias).bfloat16().requires_grad_(False)


def rows(n: int = 37) -> torch.Tensor:
    return torch.randn(2, n, 64, generator=torch.Generator().manual_seed(1)).bfloat16()


def heads() -> tuple[nn.Linear, nn.Linear]:
    """A wide fp32 layer as it is, and the same one packed."""
    torch.manual_seed(0)
    plain, packed = (nn.Linear(16, 400, bias=False).requires_grad_(False) for _ in range(2))
    put(packed.weight, plain.weight)
    pack(nn.Sequential(packed))
    assert type(packed) is PackedLinear
    return plain, packed


def learned(layer: nn.Linear, shape: tuple[int, ...], of) -> tuple[torch.Tensor, torch.Tensor]:
    """What `of` makes of the layer and drawn rows, and the gradient of its squares at them."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2)).requires_grad_()
    y = of(layer, x)
    return y, torch.autograd.grad(y.pow(2).sum(), x)[0]


@packs
@pytest.mark.parametrize("bias", [False, True])
def test_packed_numbers_and_gradients_are_those_of_a_linear_layer(bias):
    plain, packed = linear(bias), linear(bias)
    pack(packed_model := nn.Sequential(packed))
    assert type(packed_model[0]) is PackedLinear and isinstance(packed, nn.Linear)
    found = []
    for layer in (plain, packed):
        x = rows().requires_grad_()
        y = layer(x)
        found.append((y, torch.autograd.grad(y.float().pow(2).sum(), x)[0]))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-2)


@packs
def test_a_weight_changed_in_place_is_packed_again():
    layer, twin = linear(), linear()
    pack(nn.Sequential(layer))
    before = layer(rows())
    for x in (layer, twin):
        put(x.weight, -x.weight)
    torch.testing.assert_close(layer(rows()), twin(rows()), rtol=1e-2, atol=1e-2)
    assert not torch.allclose(layer(rows()), before)


@pytest.mark.skipif(not all(hasattr(torch.ops.mkldnn, op) for op in OPS), reason="needs a torch with oneDNN")
def test_a_head_in_fp32_is_packed_and_gives_a_linear_layers_numbers_and_gradients():
    plain, packed = heads()
    of = lambda layer, x: layer(x)
    for ours, theirs in zip(*(learned(layer, (5, 16), of) for layer in (plain, packed)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_other_fp32_layers_and_trainable_ones_stay_as_they_are():
    full = nn.Sequential(nn.Linear(8, 8))
    pack(full)
    assert type(full[0]) is nn.Linear
    trainable = linear().requires_grad_(True)
    pack(nn.Sequential(trainable))
    trainable(rows()).float().sum().backward()
    assert trainable.weight.grad is not None


@pytest.mark.skipif(not all(hasattr(torch.ops.mkldnn, op) for op in OPS), reason="needs a torch with oneDNN")
def test_a_packed_product_may_be_clamped_in_place_and_takes_rows_that_do_not_lie_together():
    plain, packed = heads()
    of = lambda layer, x: layer(x[:, ::3].transpose(1, 2)).clamp_(-0.5, 0.5)
    for ours, theirs in zip(*(learned(layer, (2, 48, 5), of) for layer in (plain, packed)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
