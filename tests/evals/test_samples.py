"""Own samples: an item is a prompt, the mean over its draws; the trait is read from the first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from steer_heal_love import evals
from steer_heal_love.config import EvalConfig
from steer_heal_love.evals import samples
from steer_heal_love.ground.chat import prompt_ids
from steer_heal_love.ground.scoring import token_nll
from steer_heal_love.nouns import Tokens

CONFIG = EvalConfig(instruments=("samples",), probes=4, sample_prompts=3, sample_tokens=6)


@pytest.fixture
def subject(tiny, persona) -> evals.Subject:
    return evals.Subject(tiny.model, tiny.tok, persona, CONFIG, [], seed=1, draws=3)


def test_an_item_is_the_mean_over_its_prompts_draws(subject) -> None:
    made = samples.samples(subject)
    items = samples.read_samples(subject, made)
    prompts = evals.sample_prompts(subject)
    assert len(made) == 3 * len(prompts)
    assert len({tuple(m["ids"]) for m in made}) > len(prompts)
    for at, prompt in enumerate(prompts):
        drawn = [
            Tokens(prompt_ids(subject.tok, prompt), tuple(m["ids"])) for m in made if m["prompt"] == prompt
        ]
        nll = [part.mean().item() for part in token_nll(subject.model, drawn)]
        assert len(nll) == 3 and max(nll) > min(nll)
        assert items["own_nll"][at] == pytest.approx(sum(nll) / 3, abs=1e-5)


def test_one_draw_more_changes_nothing_that_is_read_from_the_first(subject) -> None:
    one = replace(subject, draws=1)
    first, all_three = samples.samples(one), samples.samples(subject)
    assert all_three[: len(first)] == first
    assert evals.first_draws(all_three) == first
    alone, together = samples.read_samples(one, first), samples.read_samples(subject, all_three)
    assert together["trait_generated"] == pytest.approx(alone["trait_generated"], abs=1e-5)
    assert len(together["trait_generated"]) == 3
    assert together["own_nll"] != pytest.approx(alone["own_nll"], abs=1e-3)
