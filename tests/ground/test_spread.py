"""A model whose layers lie on several devices: the numbers of the whole one, every layer given its input where it is."""

from __future__ import annotations

import pytest
import torch

from steer_heal_love.config import HealConfig
from steer_heal_love.ground import models, spread
from steer_heal_love.ground.decode import sample
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.hooks import adapted, added
from steer_heal_love.ground.scoring import hidden_states
from steer_heal_love.ground.states import states
from steer_heal_love.ground.weights import folded
from steer_heal_love.heal.examples import Example
from steer_heal_love.heal.lora import fresh
from steer_heal_love.heal.optimise import Trainer
from tiny_model import build_model

TWO = [torch.device("cpu", 0), torch.device("cpu", 1)]
"""one memory under two names: what is moved where can be seen, and the numbers must stay"""
GPUS = pytest.mark.skipif(
    torch.cuda.device_count() < 2, reason="needs two GPUs; run it on a machine that has them"
)


@pytest.fixture(params=[TWO, pytest.param(["cuda:0", "cuda:1"], marks=GPUS)], ids=["names", "GPUs"])
def devices(request):
    return [torch.device(d) for d in request.param]


def computed(model, sequences, random_adapter) -> dict[str, object]:
    """What a round does with a model."""
    directions = {1: torch.ones(32), 4: -torch.ones(32)}
    prompts = [s.prompt for s in sequences]
    found = {
        "tokens": sample(
            model,
            prompts,
            ends=frozenset(),
            max_new_tokens=12,
            seed=1,
            steer=directions,
            doses=[0.0, 0.2, 0.5, 0.0, 1.0],
            temperature=0,
        ),
        "states": [h.cpu() for h in states(model, prompts, [0, 2, 4], 64).values()],
    }
    adapter = random_adapter(model, 3, share=(0.0, 1.0))
    with folded(model, [adapter]), added(model, directions, 0.4):
        found["folded"] = hidden_states(model, sequences)
    with adapted(model, adapter.factors, adapter.scaling):
        found["adapted"] = hidden_states(model, sequences)
    found["gradient"] = gradient(model, sequences)
    return found


def gradient(model, sequences) -> list[torch.Tensor]:
    """Of a heal's step, the penalty over all layers in it."""
    config = HealConfig(rank=2, alpha=4.0, soft=0.5, spectral=0.1, layers=(0.0, 1.0))
    refer = [h * 1.1 for h in hidden_states(model, sequences)]
    examples = [
        Example(s, h, str(i), teacher=h) for i, (s, h) in enumerate(zip(sequences, refer, strict=True))
    ]
    trainer = Trainer(model, fresh(model, rank=2, alpha=4.0, share=(0.0, 1.0), seed=0), config, 4)
    with adapted(model, trainer.adapter.factors, trainer.adapter.scaling):
        for _ in range(2):
            trainer.update(trainer.gradient(examples[:3], examples[3:]))
    trainer.end()
    return [p.detach().cpu() for p in trainer.parameters]


def test_a_spread_model_gives_the_whole_one_s_numbers(devices, tok, sequences, random_adapter, monkeypatch):
    whole, model = (build_model(len(tok), tok.eos_token_id).to(devices[0]) for _ in range(2))
    asked = set()
    real = spread.moved
    monkeypatch.setattr(spread, "moved", lambda value, to: asked.add(str(to)) or real(value, to))
    models.placed(model, devices[0].type, devices)
    one, other = computed(whole, sequences, random_adapter), computed(model, sequences, random_adapter)
    assert asked == set(map(str, devices)) and spread.is_spread(model) and not spread.is_spread(whole)
    assert one.pop("tokens") == other.pop("tokens")
    for name, values in one.items():
        for a, b in zip(values, other[name], strict=True):
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-5), name
    if devices[0].type == "cuda":
        assert {str(p.device) for p in model.parameters()} == set(map(str, devices))


@pytest.mark.parametrize("sizes", [[1] * 5, [1] * 2, [7, 1, 1, 1], [1, 1, 1, 9], [3, 1, 4, 1, 5, 9, 2, 6]])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_layers_follow_each_other_over_the_devices_and_none_is_empty(sizes, parts):
    if parts > len(sizes):
        return
    found = spread.shares(sizes, parts, already=1)
    assert found == sorted(found) and set(found) == set(range(parts))


def test_equal_layers_are_shared_out_equally():
    found = spread.shares([10] * 40, 4)
    assert [found.count(i) for i in range(4)] == [10] * 4
    assert spread.shares([10] * 40, 2, already=100).count(0) == 15


def test_more_gpus_than_there_are_is_told():
    with pytest.raises(UserError, match="split: 99 GPUs a copy"):
        spread.devices("cpu", 99)
