"""Rounds to one delta, exactly, and folders that plain PEFT loads."""

from __future__ import annotations

import json

import peft
import pytest
import torch

from steer_heal_love import bake
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.ground.weights import folded
from steer_heal_love.nouns import Adapter

IDS = torch.arange(3, 27).reshape(3, 8)


@pytest.fixture
def rounds(model, random_adapter):
    return [
        random_adapter(model, 1),
        random_adapter(model, 2, rank=3, alpha=2.0),
        random_adapter(model, 3, rank=7, alpha=10.0),
    ]


@torch.no_grad()
def logits(model):
    return model(IDS).logits


def deltas(adapter: Adapter) -> dict[str, torch.Tensor]:
    return {n: adapter.scaling * (b @ a) for n, (a, b) in adapter.factors.items()}


def test_a_stack_is_the_sum_of_the_rounds(rounds):
    found, parts = deltas(bake.stack(rounds)), [deltas(r) for r in rounds]
    for name, delta in found.items():
        assert torch.allclose(delta, sum(p[name] for p in parts), atol=1e-6)


def test_the_stack_of_one_round_is_that_round(rounds):
    found = bake.stack(rounds[:1])
    for name, delta in deltas(rounds[0]).items():
        assert torch.allclose(deltas(found)[name], delta, atol=1e-7)


def test_a_module_missing_from_a_round_contributes_nothing_there(model, random_adapter):
    wide, narrow = random_adapter(model, 1, share=(0.0, 1.0)), random_adapter(model, 2)
    found = deltas(bake.stack([wide, narrow]))
    assert found.keys() == wide.factors.keys() > narrow.factors.keys()
    for name, delta in found.items():
        want = deltas(wide)[name] + (deltas(narrow)[name] if name in narrow.factors else 0)
        assert torch.allclose(delta, want, atol=1e-6)


def test_save_and_load_are_inverse(model, rounds, tmp_path):
    for i, adapter in enumerate([*rounds, bake.stack(rounds)]):
        bake.save_peft(adapter, tmp_path / str(i), base_model="tiny")
        again = bake.load_peft(tmp_path / str(i))
        assert again.scaling == pytest.approx(adapter.scaling, rel=1e-12)
        assert again.factors.keys() == adapter.factors.keys()
        for n, (a, b) in adapter.factors.items():
            assert torch.equal(a, again.factors[n][0]) and torch.equal(b, again.factors[n][1])
    with adapted(model, rounds[0].factors, rounds[0].scaling):
        before = logits(model)
    again = bake.load_peft(tmp_path / "0")
    with adapted(model, again.factors, again.scaling):
        assert torch.equal(logits(model), before)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_plain_peft_loads_a_round_to_the_same_logits(model, rounds, tmp_path, which):
    adapter = rounds[which]
    bake.save_peft(adapter, tmp_path / "a", base_model="tiny")
    plain = logits(model)
    with adapted(model, adapter.factors, adapter.scaling):
        ours = logits(model)
    theirs = logits(peft.PeftModel.from_pretrained(model, str(tmp_path / "a")))
    assert torch.allclose(ours, theirs, atol=1e-3)
    assert (theirs - plain).abs().amax() > 0.1


def test_plain_peft_loads_the_stack_to_the_folded_logits(model, rounds, tmp_path):
    bake.save_peft(bake.stack(rounds), tmp_path / "a", base_model="tiny")
    with folded(model, rounds):
        ours = logits(model)
    theirs = peft.PeftModel.from_pretrained(model, str(tmp_path / "a"))
    assert torch.allclose(ours, logits(theirs), atol=2e-3)
    assert torch.allclose(ours, logits(theirs.merge_and_unload()), atol=2e-3)


def test_plain_peft_loads_a_stack_of_rounds_on_different_layers(model, random_adapter, tmp_path):
    rounds = [
        random_adapter(model, 1, share=(0.0, 0.4)),
        random_adapter(model, 2, share=(0.2, 0.8)),
    ]
    with folded(model, rounds):
        ours = logits(model)
    bake.save_peft(bake.stack(rounds), tmp_path / "a", base_model="tiny")
    assert torch.allclose(
        ours,
        logits(peft.PeftModel.from_pretrained(model, str(tmp_path / "a"))),
        atol=2e-3,
    )


def test_our_loader_reads_what_peft_saves(model, tmp_path):
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(
        model,
        peft.LoraConfig(
            r=3,
            lora_alpha=5,
            target_modules=["q_proj", "up_proj"],
            init_lora_weights=False,
        ),
    )
    theirs = logits(wrapped.eval())
    wrapped.save_pretrained(tmp_path / "a")
    plain = wrapped.unload()
    loaded = bake.load_peft(tmp_path / "a")
    with adapted(plain, loaded.factors, loaded.scaling):
        assert torch.allclose(logits(plain), theirs, atol=1e-3)


def test_what_is_no_plain_lora_is_a_user_error(model, rounds, tmp_path):
    with pytest.raises(UserError, match="no PEFT adapter"):
        bake.load_peft(tmp_path / "nothing")
    bake.save_peft(rounds[0], tmp_path / "a", base_model="tiny")
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    for change in ({"use_dora": True}, {"lora_bias": True}, {"peft_type": "IA3"}):
        (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(config | change))
        with pytest.raises(UserError, match="plain LoRA"):
            bake.load_peft(tmp_path / "a")


def test_a_failed_save_keeps_what_was_there(rounds, tmp_path, monkeypatch):
    bake.save_peft(rounds[0], tmp_path / "a", base_model="tiny")

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bake, "save_file", full)
    with pytest.raises(UserError, match="No space left"):
        bake.save_peft(rounds[1], tmp_path / "a", base_model="tiny")
    kept = bake.load_peft(tmp_path / "a")
    assert kept.scaling == rounds[0].scaling
    assert {p.name for p in (tmp_path / "a").iterdir()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
    }
