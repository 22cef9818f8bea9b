"""Contexts that change what a model computes: identity at zero, one dose a row, gone on every way out."""

from __future__ import annotations

import pytest
import torch

from steer_heal_love.ground.decode import sample
from steer_heal_love.ground.hooks import adapted, added, biased, captured, cooled
from steer_heal_love.ground.models import bare, edits, head, voice
from steer_heal_love.ground.scoring import hidden_states, token_divergence
from steer_heal_love.heal.lora import fresh

IDS = torch.arange(3, 27).reshape(3, 8)


def logits(model, ids=IDS):
    with torch.no_grad():
        return model(ids).logits


@pytest.fixture
def directions(model):
    draw = torch.Generator().manual_seed(1)
    return {i: torch.randn(model.config.hidden_size, generator=draw) for i in (1, 3)}


def test_dose_zero_changes_nothing_and_another_does(model, directions):
    plain = logits(model)
    with added(model, directions, 0.0):
        assert torch.equal(logits(model), plain)
    with added(model, directions, 0.5):
        assert (logits(model) - plain).abs().amax() > 0.1
    assert torch.equal(logits(model), plain)


def test_the_dose_is_added_to_the_named_layer_at_every_position(model, directions):
    read = []
    probe = model.model.layers[3].register_forward_hook(
        lambda _m, _a, out: read.append(out[0] if isinstance(out, tuple) else out)
    )
    logits(model)
    probe.remove()
    with added(model, {3: directions[3]}, 0.75):
        probe = model.model.layers[3].register_forward_hook(
            lambda _m, _a, out: read.append(out[0] if isinstance(out, tuple) else out)
        )
        logits(model)
        probe.remove()
    moved = read[1] - read[0]
    assert torch.allclose(moved, (0.75 * directions[3]).expand_as(moved), atol=1e-5)


def test_a_dose_a_row_equals_separate_runs(model, directions):
    doses = torch.tensor([0.0, 0.3, -1.2])
    with added(model, directions, doses):
        together = logits(model)
    for row, dose in enumerate(doses.tolist()):
        with added(model, directions, dose):
            alone = logits(model, IDS[row : row + 1])
        assert torch.allclose(together[row], alone[0], atol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-1)


def test_doses_that_do_not_fit_the_batch_are_refused(model, directions):
    with (
        added(model, directions, torch.tensor([0.1, 0.2])),
        pytest.raises(ValueError, match="2 doses.*3 rows"),
    ):
        logits(model)


def test_a_fresh_adapter_changes_nothing_and_a_trained_one_does(model, random_adapter):
    plain = logits(model)
    new = fresh(model, rank=4, alpha=8.0, share=(0.2, 0.8), seed=0)
    assert all(a.abs().sum() > 0 for a, _ in new.factors.values())
    with adapted(model, new.factors, new.scaling):
        assert torch.equal(logits(model), plain)
    trained = random_adapter(model, 1)
    with adapted(model, trained.factors, trained.scaling):
        assert (logits(model) - plain).abs().amax() > 0.1
    assert torch.equal(logits(model), plain)


def test_a_fresh_adapter_sits_on_every_linear_module_of_its_band_alone(model):
    new = fresh(model, rank=4, alpha=8.0, share=(0.2, 0.8), seed=0)
    assert {n.split(".")[2] for n in new.factors} == {"1", "2", "3"}
    assert {n.rpartition(".")[2] for n in new.factors} == {
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    }
    again = fresh(model, rank=4, alpha=8.0, share=(0.2, 0.8), seed=0)
    other = fresh(model, rank=4, alpha=8.0, share=(0.2, 0.8), seed=1)
    name = next(iter(new.factors))
    assert torch.equal(new.factors[name][0], again.factors[name][0])
    assert not torch.equal(new.factors[name][0], other.factors[name][0])


def test_scaling_multiplies_the_update(model, random_adapter):
    trained = random_adapter(model, 1)
    with adapted(model, trained.factors, trained.scaling * 0.5):
        halved = logits(model)
    by_b = trained.scaled(0.5)
    with adapted(model, by_b.factors, by_b.scaling):
        assert torch.allclose(logits(model), halved, atol=1e-5)


@pytest.mark.parametrize("kind", ["added", "adapted"])
def test_no_hook_survives_an_exception(model, directions, random_adapter, hooks, kind):
    adapter = random_adapter(model, 1)

    def enter():
        return added(model, directions, 1.0) if kind == "added" else adapted(model, adapter.factors, 2.0)

    plain, before = logits(model), hooks(model)
    with pytest.raises(KeyError, match="in the body"), enter():
        assert hooks(model) > before
        raise KeyError("in the body")
    assert hooks(model) == before
    assert torch.equal(logits(model), plain)
    with enter():
        assert hooks(model) > before
    assert hooks(model) == before


def test_no_hook_survives_a_failure_half_way_through_entering(
    model, directions, random_adapter, hooks, monkeypatch
):
    for check in ("vector", "adapter"):  # which would refuse both before anything is registered
        monkeypatch.setattr(f"steer_heal_love.ground.fits.{check}", lambda *_: None)
    with (
        pytest.raises(IndexError),
        added(model, {**directions, 99: directions[1]}, 1.0),
    ):
        raise AssertionError("layer 99 does not exist")
    assert hooks(model) == 0
    adapter = random_adapter(model, 1)
    with (
        pytest.raises(AttributeError),
        adapted(
            model,
            {
                **adapter.factors,
                "model.no": adapter.factors["model.layers.1.mlp.up_proj"],
            },
        ),
    ):
        raise AssertionError("model.no does not exist")
    assert hooks(model) == 0
    with added(model, directions, 1.0), adapted(model, adapter.factors):
        assert hooks(model) == len(directions) + len(adapter.factors)


@pytest.mark.parametrize("kind", ["added", "adapted"])
def test_entering_twice_is_refused_and_the_first_goes_on(model, directions, random_adapter, hooks, kind):
    adapter = random_adapter(model, 1)

    def enter():
        return added(model, directions, 1.0) if kind == "added" else adapted(model, adapter.factors, 2.0)

    with enter():
        inside, steered = hooks(model), logits(model)
        with pytest.raises(RuntimeError, match="already inside"), enter():
            raise AssertionError("entered twice")
        assert hooks(model) == inside
        assert torch.equal(logits(model), steered)
        with pytest.raises(RuntimeError, match="already inside"), enter():
            raise AssertionError("a refusal must not open the door")
    assert hooks(model) == 0


def test_captured_equals_the_models_own_hidden_states(model, hooks):
    own = model(IDS, output_hidden_states=True).hidden_states
    before = hooks(model)  # transformers left its own there
    read = captured(model, [0, 2, 3], input_ids=IDS)
    assert hooks(model) == before
    assert set(read) == {0, 2, 3}
    for layer, hidden in read.items():
        assert hidden.dtype == torch.float32
        assert torch.allclose(hidden, own[layer + 1][:, -1], atol=1e-5)
    last = captured(model, [4], input_ids=IDS)[4]
    assert torch.allclose(model.model.norm(last), own[-1][:, -1], atol=1e-5)


def test_captured_stops_after_the_topmost_layer(model):
    ran = []
    for i, block in enumerate(model.model.layers):
        block.register_forward_pre_hook(lambda *_a, i=i: ran.append(i))
    captured(model, [2, 0], input_ids=IDS)
    assert ran == [0, 1, 2]


def test_captured_sees_steering_and_leaves_no_hook_after_a_failure(model, directions, hooks):
    plain = captured(model, [1], input_ids=IDS)[1]
    with added(model, {1: directions[1]}, 2.0):
        steered = captured(model, [1], input_ids=IDS)[1]
    assert torch.allclose(steered - plain, (2 * directions[1]).expand_as(plain), atol=1e-4)
    with pytest.raises(IndexError):
        captured(model, [1, 99], input_ids=IDS)
    with pytest.raises((IndexError, RuntimeError)):
        captured(model, [1], input_ids=IDS + 10_000)
    assert hooks(model) == 0


BIAS = torch.linspace(-2.0, 3.0, 7)


@pytest.fixture
def bias(model):
    out = torch.zeros(model.config.vocab_size)
    out[3:10] = BIAS
    return out


@pytest.mark.parametrize("kind", ["biased", "cooled"])
def test_an_edit_acts_on_the_models_own_logits_and_on_those_of_states(model, bias, hooks, kind):
    enter, edit = {
        "biased": (lambda: biased(model, bias), lambda z: z + bias),
        "cooled": (lambda: cooled(model, 0.8), lambda z: z / 0.8),
    }[kind]
    plain, before = logits(model), hooks(model)
    states = model.get_decoder()(IDS).last_hidden_state[0]
    with enter():
        assert torch.allclose(logits(model), edit(plain), atol=1e-5)
        assert torch.allclose(head(model, states), edit(plain[0]), atol=1e-4)
        assert torch.allclose(bare(model)(states), plain[0], atol=1e-4)
        assert torch.allclose(model(IDS, return_dict=False)[0], edit(plain), atol=1e-5)
        with pytest.raises(RuntimeError, match=f"already inside '{kind}'"), enter():
            pass
        with pytest.raises(RuntimeError, match="loss"):
            model(IDS, labels=IDS)
        assert torch.allclose(logits(model), edit(plain), atol=1e-5), (
            "a refused entry leaves the first one in place"
        )
        kept = voice(model)
    assert hooks(model) == before and edits(model) == []
    assert torch.allclose(kept(states), edit(plain[0]), atol=1e-4), "a voice outlasts the context"
    assert torch.equal(logits(model), plain)


def test_an_edit_is_unconditional(model, bias):
    plain = logits(model)
    with biased(model, bias):
        moved = logits(model) - plain
    assert torch.allclose(moved, bias.expand_as(moved), atol=1e-5), "the same at every position of every text"


def test_bias_zero_and_temperature_one_change_nothing_and_both_can_be_on(model, bias):
    plain = logits(model)
    with biased(model, torch.zeros_like(bias)), cooled(model, 1.0):
        assert torch.equal(logits(model), plain)
    with biased(model, bias), cooled(model, 2.0):
        assert torch.allclose(logits(model), (plain + bias) / 2, atol=1e-5), "in the order of entry"
    with pytest.raises(ValueError, match="temperature"), cooled(model, 0.0):
        pass


def test_no_edit_survives_an_exception(model, bias, hooks):
    plain, before = logits(model), hooks(model)
    with pytest.raises(KeyError, match="in the body"), biased(model, bias), cooled(model, 0.5):
        raise KeyError("in the body")
    assert hooks(model) == before and edits(model) == [] and torch.equal(logits(model), plain)


def test_an_edit_comes_after_the_softcap(model, bias):
    model.config.final_logit_softcapping = 5.0
    states = model.get_decoder()(IDS).last_hidden_state[0]
    with biased(model, 100 * bias):
        assert head(model, states).max() > 100, "a bias inside the cap would end at 5"


def test_decoding_and_scoring_see_the_edit_and_the_bases_states_stay_the_bases(model, bias, sequences):
    prompts = [s.prompt for s in sequences]
    ruled = torch.zeros_like(bias)
    ruled[5] = 1e4
    with biased(model, ruled):
        assert sample(model, prompts, ends=frozenset(), max_new_tokens=3, seed=0) == [(5, 5, 5)] * len(
            prompts
        )
    states = hidden_states(model, sequences)
    with cooled(model, 0.5):
        found = token_divergence(model, sequences, states)
    for s, kl in zip(sequences, found, strict=True):
        z = logits(model, torch.tensor([s.prompt + s.answer]))[0, len(s.prompt) - 1 : -1]
        p, q = z.softmax(-1), (z / 0.5).softmax(-1)
        assert torch.allclose(kl, (p * (p / q).log()).sum(-1), atol=1e-3) and kl.mean() > 0.01
