"""Operations on the stream and at linear modules: laws of each, on a plain tiny model and on one with a sliding window."""

from __future__ import annotations

import math

import pytest
import torch
from tests.tiny_model import build_model, hooks_of
from transformers import MistralConfig, MistralForCausalLM

from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.hooks import added
from steer_heal_love.ground.operations import Steering, operated, operations, rows
from steer_heal_love.ground.places import Directions

EVERY = pytest.mark.parametrize("name", sorted(operations))
PLACE = pytest.mark.parametrize("hook", ["", "mlp.up_proj"])
IDS = torch.randint(4, 60, (2, 12), generator=torch.Generator().manual_seed(0))


def sliding() -> MistralForCausalLM:
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=4,
        initializer_range=0.25,
        attn_implementation="eager",
    )
    return MistralForCausalLM(config).eval().requires_grad_(False)


@pytest.fixture(scope="module", params=["plain", "sliding"])
def net(request):
    return build_model(64, 2) if request.param == "plain" else sliding()


def made(name, hook=""):
    """What the operation takes, at two layers."""
    draw, many, width = torch.Generator().manual_seed(1), rows.get(name, 1), 48 if hook else 32
    shape = (many, width) if many > 1 else (width,)
    return Directions({i: torch.randn(shape, generator=draw) for i in (1, 3)}, hook=hook)


@pytest.fixture(scope="module")
def directions():
    return made("add")


def logits(net, ids=IDS, **more):
    return net(ids, **more).logits


@EVERY
@PLACE
def test_dose_zero_is_the_identity_and_another_dose_is_not(net, name, hook):
    directions = made(name, hook)
    plain = logits(net)
    with operated(net, name, directions, 0.0):
        assert torch.allclose(logits(net), plain, atol=1e-4)
    with operated(net, name, directions, 0.8):
        assert not torch.allclose(logits(net), plain, atol=1e-1)
    assert torch.equal(logits(net), plain)


@EVERY
@PLACE
def test_each_row_is_what_it_is_alone(net, name, hook):
    directions = made(name, hook)
    doses = torch.tensor([0.3, -0.9])
    with operated(net, name, directions, doses):
        both = logits(net)
    for row in (0, 1):
        with operated(net, name, directions, doses[row].item()):
            assert torch.allclose(logits(net, IDS[row : row + 1])[0], both[row], atol=1e-3)


@EVERY
@PLACE
def test_cached_steps_give_what_one_reading_gives_and_each_is_steered(net, name, hook):
    directions = made(name, hook)
    with operated(net, name, directions, 0.8):
        whole = logits(net)
        first = net(IDS[:, :6], use_cache=True)
        cache, steps = first.past_key_values, [first.logits]
        for at in range(6, IDS.shape[1]):
            step = net(IDS[:, at : at + 1], past_key_values=cache, use_cache=True)
            cache, steps = step.past_key_values, [*steps, step.logits]
    assert torch.allclose(torch.cat(steps, 1), whole, atol=1e-3)


@EVERY
@PLACE
def test_padding_on_the_left_changes_nothing(net, name, hook):
    directions = made(name, hook)
    ids = torch.cat([torch.zeros(2, 3, dtype=torch.long), IDS], 1)
    mask = (torch.arange(15) >= 3).long().expand(2, -1)
    places = (mask.cumsum(1) - 1).clamp_min(0)
    with operated(net, name, directions, 0.8):
        padded = logits(net, ids, attention_mask=mask, position_ids=places)[:, 3:]
        assert torch.allclose(padded, logits(net), atol=1e-3)


@EVERY
@PLACE
def test_nothing_is_left_after_an_error(net, name, hook):
    directions = made(name, hook)
    with pytest.raises(KeyError, match="inside"), operated(net, name, directions, 1.0):
        raise KeyError("inside")
    for wrong in ({99: directions[1]}, {1: directions[1][..., 1:]}, {1: torch.stack([directions[1]] * 3)}):
        with pytest.raises(UserError), operated(net, name, directions.like(wrong), 1.0):
            pass
    assert hooks_of(net) == 0
    with (
        operated(net, name, directions, 1.0),
        pytest.raises(RuntimeError),
        added(net, made("add", hook), 1.0),
    ):
        pass
    assert hooks_of(net) == 0


@EVERY
@pytest.mark.parametrize("sign", [1, -1])
def test_a_zero_direction_and_a_parallel_state_stay_finite(name, sign):
    v = torch.tensor([0.0, 2.0, 0.0])
    h = sign * v.expand(1, 1, 3)
    v = v.expand(many, 3) if (many := rows.get(name, 1)) > 1 else v
    assert torch.equal(operations[name](h, torch.zeros_like(v), 1.0), torch.zeros(1, 1, 3))
    assert operations[name](h, v, 1.0).isfinite().all()


def state():
    return torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(2)), torch.arange(8.0)


def test_the_adding_operation_is_the_adding_hook(net, directions):
    with added(net, directions, 0.7):
        want = logits(net)
    with operated(net, "add", directions, 0.7):
        assert torch.allclose(logits(net), want, atol=1e-4)


def test_full_ablation_leaves_nothing_along_the_direction_and_all_else():
    h, v = state()
    after = h + operations["ablate"](h, v, 1.0)
    assert torch.allclose(after @ v, torch.zeros(2, 3), atol=1e-4)
    other = torch.eye(8)[0]
    assert torch.allclose(after @ other, h @ other)


def test_a_rotation_keeps_the_norm_turns_by_the_dose_and_stops_at_the_direction():
    h, v = state()
    for dose, want in ((0.2, 0.2), (-0.2, -0.2)):
        after = h + operations["rotate"](h, v, dose)
        assert torch.allclose(after.norm(dim=-1), h.norm(dim=-1), atol=1e-4)
        turned = torch.arccos(torch.cosine_similarity(h, v, dim=-1)) - torch.arccos(
            torch.cosine_similarity(after, v, dim=-1)
        )
        assert torch.allclose(turned, torch.full((2, 3), want), atol=1e-3)
    far = h + operations["rotate"](h, v, math.pi)
    assert torch.allclose(torch.cosine_similarity(far, v, dim=-1), torch.ones(2, 3), atol=1e-4)


def test_the_gate_is_shut_along_the_direction_and_open_against_it():
    v = torch.tensor([0.0, 2.0])
    h = torch.tensor([[[0.0, 3.0], [0.0, -3.0], [1.0, 0.0]]])
    want = torch.stack([0 * v, v, v / 2])[None]
    assert torch.allclose(operations["gate"](h, v, 1.0), want, atol=1e-6)


def test_a_constant_folds_into_the_bias_of_the_last_writer(directions):
    net = build_model(64, 2)
    with operated(net, "add", directions, 0.7):
        want = logits(net)
    for index, v in directions.items():
        net.model.layers[index].mlp.down_proj.bias = torch.nn.Parameter(0.7 * v, requires_grad=False)
    assert torch.allclose(logits(net), want, atol=1e-4)


def test_transport_without_a_slope_is_adding_and_at_dose_one_the_affine_map():
    h, v = state()
    slope = torch.linspace(-0.5, 0.5, 8)
    assert torch.equal(
        operations["transport"](h, torch.stack([torch.zeros(8), v]), 0.7), (0.7 * v).expand_as(h)
    )
    assert torch.allclose(
        h + operations["transport"](h, torch.stack([slope, v]), 1.0), (1 + slope) * h + v, atol=1e-6
    )


def test_adding_at_a_linear_module_is_its_bias(net):
    v = made("add", "mlp.up_proj")
    with added(net, v, 0.7):
        want = logits(net)
    places = [net.model.layers[i].mlp.up_proj for i in v]
    for place, shift in zip(places, v.values(), strict=True):
        place.bias = torch.nn.Parameter(0.7 * shift, requires_grad=False)
    try:
        assert torch.allclose(logits(net), want, atol=1e-4)
    finally:
        for place in places:
            place.bias = None


def test_a_module_that_is_not_there_or_is_not_linear_is_named_with_those_that_are(net):
    for hook in ("mlp.nothing", "mlp"):
        with (
            pytest.raises(UserError, match=r"mlp\.down_proj"),
            added(net, Directions({1: torch.ones(32)}, hook=hook), 1.0),
        ):
            pass
    assert hooks_of(net) == 0


def test_what_is_made_for_one_operation_is_applied_by_it_and_by_no_other(net):
    own = Directions(made("transport"), operation="transport")
    with Steering(own)(net, 0.5):
        found = logits(net)
    with operated(net, "transport", own, 0.5):
        assert torch.equal(logits(net), found)
    with pytest.raises(UserError, match="made for transport"):
        Steering(own, "gate")
