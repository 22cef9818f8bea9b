"""Rounds beside quantised weights: exact, removable, and never merged."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from torch import nn

import tiny_run
from steer_heal_love import bake, doctor, presets
from steer_heal_love.bake.merged import save_merged
from steer_heal_love.ground import models
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.ground.weights import folded
from tiny_model import build_model, hooks_of


class Coarse(nn.Linear):
    """A weight stored as whole numbers, as quantised ones are."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False)
        self.step = linear.weight.detach().abs().max() / 7
        whole = (linear.weight.detach() / self.step).round().to(torch.int8)
        del self.weight
        self.weight = nn.Parameter(whole, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight.to(x) * self.step)


@pytest.fixture
def coarse(tok):
    model = build_model(len(tok), tok.eos_token_id)
    for layer in model.model.layers:
        layer.mlp.up_proj = Coarse(layer.mlp.up_proj)
        layer.self_attn.q_proj = Coarse(layer.self_attn.q_proj)
    return model


def logits(model):
    with torch.no_grad():
        return model(torch.arange(3, 20)[None]).logits


def test_rounds_beside_quantised_weights_are_what_is_exported(coarse, random_adapter):
    rounds = [random_adapter(coarse, seed) for seed in (1, 2)]
    plain, whole = logits(coarse), bake.stack(rounds)
    with folded(coarse, rounds):
        held = logits(coarse)
    with adapted(coarse, whole.factors, whole.scaling):
        torch.testing.assert_close(held, logits(coarse))
    assert not torch.allclose(held, plain) and torch.equal(logits(coarse), plain) and hooks_of(coarse) == 0


def test_a_round_trains_on_top_of_those_before(coarse, random_adapter):
    """The hooks of both kinds live together, and a gradient reaches the new round through the old."""
    before, new = random_adapter(coarse, 1), random_adapter(coarse, 2)
    leaves = [f.requires_grad_(True) for pair in new.factors.values() for f in pair]
    with folded(coarse, [before]), adapted(coarse, new.factors, new.scaling):
        grads = torch.autograd.grad(coarse(torch.arange(3, 20)[None]).logits.logsumexp(-1).sum(), leaves)
    assert all(g.abs().sum() > 0 for g in grads)


def test_quantised_weights_are_never_merged(coarse, tok, random_adapter, tmp_path):
    with pytest.raises(UserError, match="--format peft"):
        save_merged(coarse, tok, random_adapter(coarse, 1), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def four(tok, tmp_path):
    """A model in four bits, as bitsandbytes stores it."""
    if find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed; pip install 'steer-heal-love[4bit]' brings it")
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    build_model(len(tok), tok.eos_token_id).save_pretrained(tmp_path / "whole")
    quantised = AutoModelForCausalLM.from_pretrained(
        tmp_path / "whole",
        quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
        device_map={"": "cpu"},
        dtype=torch.float32,
    )
    quantised.save_pretrained(tmp_path / "four")
    tok.save_pretrained(tmp_path / "four")
    return tmp_path / "four"


def test_a_base_in_four_bits_passes_the_doctor(four):
    model, tok = models.load(str(four), device="cpu", dtype="float32")
    assert not model.model.layers[2].mlp.up_proj.weight.is_floating_point()
    found = doctor.examine(doctor.Patient("four", model, tok, presets.preset("cpu")))
    assert [f for f in found if f.verdict == "fails"] == []


def test_the_adapter_of_a_run_on_a_base_in_four_bits_is_the_live_model_by_peft(four, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    run = tiny_run.run(tmp_path / "runs", model=str(four), rounds=2)
    model, _ = models.load(str(four), device="cpu", dtype="float32")
    plain, whole = logits(model), bake.load_peft(run / "adapter")
    with adapted(model, whole.factors, whole.scaling):
        ours = logits(model)
    base = AutoModelForCausalLM.from_pretrained(four, device_map={"": "cpu"}, dtype=torch.float32)
    theirs = logits(PeftModel.from_pretrained(base, run / "adapter"))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(theirs, plain, atol=1e-2)
