"""How a model may be read is found by trial: what its numbers don't survive is not done with it."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from steer_heal_love.ground import reading
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.reading import Way, way


def test_plain_attention_is_read_in_every_way(model):
    assert way(model) == Way(math.inf, math.inf, math.inf, math.inf, True)


def test_a_verdict_is_found_once(model, monkeypatch):
    found = way(model)
    monkeypatch.setattr(reading, "tried", lambda _: pytest.fail("tried again"))
    assert way(model) is found


def test_a_cache_that_forgets_is_not_used(model, monkeypatch):
    """Its first layer loses what it had whenever more comes."""
    plain = model.model.layers[0].self_attn.forward

    def forgetful(*args, past_key_values=None, **more):
        if past_key_values is not None:
            past_key_values.layers[0].reset()
        return plain(*args, past_key_values=past_key_values, **more)

    monkeypatch.setattr(model.model.layers[0].self_attn, "forward", forgetful)
    found = way(model)
    assert (found.inside, found.front, found.cached) == (0, 0, 0) and found.beside == math.inf


def test_rows_that_see_each_other_are_refused(model, monkeypatch):
    plain = model.model.layers[0].forward
    monkeypatch.setattr(
        model.model.layers[0], "forward", lambda hidden, **more: plain(hidden + hidden.mean(0), **more)
    )
    with pytest.raises(UserError, match="beside a longer one"):
        way(model)


def test_manners_go_from_the_quickest_to_the_surest():
    known = Way(beside=math.inf, inside=10, front=20, cached=30, rows=True)
    assert [known.manner(n) for n in (10, 11, 21, 31)] == ["inside", "front", "equal", "again"]


def test_limits_are_read_from_the_configuration(model):
    assert reading.limits(model) == (math.inf, math.inf)
    model.config.sliding_window, model.config.max_window_layers = 64, 2
    assert reading.limits(model)[0] == 64
    model.config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0}
    assert reading.limits(model)[1] == model.config.max_position_embeddings
    model.config.rope_parameters = {"rope_type": "longrope", "original_max_position_embeddings": 32}
    assert reading.limits(model)[1] == 32


def test_the_trial_leaves_the_dice_alone(model):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    way(model)
    assert torch.equal(before, torch.get_rng_state())


def test_rounding_in_a_deep_model_is_no_fault_and_a_fault_still_is(monkeypatch):
    config = LlamaConfig(
        hidden_size=96,
        num_hidden_layers=24,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=96,
        vocab_size=300,
        initializer_range=0.15,
    )
    torch.manual_seed(0)
    deep = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
    exact = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    exact.load_state_dict({name: w.float() for name, w in deep.state_dict().items()})
    ids = torch.arange(1, 17)[None]
    with torch.no_grad():
        ours, theirs = (reading.forward(m, ids, use_cache=False)[0].float() for m in (deep, exact))
    gap = ((ours - theirs).norm(dim=-1) / theirs.norm(dim=-1)).max()
    assert reading.COARSE < gap < reading.closeness(deep), (
        "this model makes more of rounding than a fixed bound"
    )
    assert way(deep).inside > 0, "and is read in the quickest way all the same"

    forgetful = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
    plain = reading.forward
    forget = lambda m, ids, mask=None, places=None, cache=None, **how: plain(
        m, ids, mask, places, None, **how
    )
    monkeypatch.setattr(reading, "forward", forget)
    assert way(forgetful).cached == 0
