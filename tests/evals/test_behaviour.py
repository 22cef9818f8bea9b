"""Behaviour: what the readout is fitted on is made once by the base; own samples are read by prompt, or not at all."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from steer_heal_love import evals
from steer_heal_love.config import EvalConfig
from steer_heal_love.evals import behaviour
from steer_heal_love.evals.readout import fit
from steer_heal_love.ground import records
from steer_heal_love.ground.chat import prompt_ids
from steer_heal_love.ground.errors import UserError

CONFIG = EvalConfig(
    instruments=("samples", "behaviour"),
    probes=4,
    sample_prompts=3,
    sample_tokens=6,
    behaviour_prompts=8,
    resamples=50,
)
NEITHER = ("grey stone wall", "long wet road", "small iron gate", "tall dry tree")


@pytest.fixture
def subject(tiny, persona) -> evals.Subject:
    return evals.Subject(tiny.model, tiny.tok, persona, CONFIG, [], seed=1, draws=2)


def told(*, apart: bool, n: int = 24) -> dict:
    """Prepared texts whose poles differ by whole sentences, or by nothing but chance."""
    g, texts = np.random.default_rng(0), []
    for i in range(n):
        for pos in (True, False):
            voice = (
                ("we sang together under lamps" if pos else "count each entry twice again") if apart else ""
            )
            texts.append(
                {"prompt": f"p{i}", "pos": pos, "text": f"{' '.join(g.permutation(NEITHER))} {voice}"}
            )
    return {"texts": texts, "masked": ["lamp"]}


def test_each_pole_answers_every_training_prompt_and_no_probe(subject, persona):
    made = behaviour.prepare(subject)
    prompts = [t["prompt"] for t in made["texts"]]
    assert len(prompts) == 16 and {prompts.count(p) for p in prompts} == {2}
    assert set(prompts) <= {*persona.elicit, *persona.plain}
    assert sorted(t["pos"] for t in made["texts"]) == [False] * 8 + [True] * 8
    assert {"warm", "loving", "cold", "machine"} <= set(
        made["masked"]
    ) and "with" not in behaviour.pole_words(persona)


def test_what_was_prepared_reads_the_same_from_a_file(subject, tmp_path):
    made = behaviour.prepare(subject)
    records.write_json(tmp_path / "behaviour.json", made)
    assert records.read_json(tmp_path / "behaviour.json") == made == behaviour.prepare(subject)


def test_the_bias_vector_is_the_mean_log_ratio_of_the_prompted_models(subject):
    own = {"Name a cat.": (20, 30, 40), "Name a loaf.": (50, 60)}
    parts = []
    for prompt, answer in own.items():
        log_p = []
        for pole in ("pos", "neg"):
            ids = prompt_ids(subject.tok, prompt, subject.persona.system(pole))
            logits = subject.model(torch.tensor([[*ids, *answer]])).logits[0]
            log_p.append(logits[len(ids) - 1 : -1].log_softmax(-1))
        parts.append(log_p[0] - log_p[1])
    found = behaviour.bias_vector(subject, own)
    assert torch.allclose(found, torch.cat(parts).mean(0), atol=1e-4)


def test_an_item_is_a_probe_question_and_the_base_has_no_shift(subject, tmp_path):
    subject = replace(subject, prepared={"behaviour": told(apart=True)})
    stage = evals.evaluate(subject, "base")
    assert len(stage.items["behaviour"]) == len(stage.items["behaviour_masked"]) == 3
    assert len(stage.items["behaviour_auc"]) == 24
    assert stage.scores["behaviour_shift"].mean == 0 and stage.scores["behaviour_shift"].n == 3
    assert stage.scores["behaviour_auc"].mean == pytest.approx(np.mean(stage.items["behaviour_auc"]))
    assert json.dumps(records.plain(stage.items))


def test_an_item_is_the_mean_over_its_prompts_draws(subject):
    kept = told(apart=True)
    asked = [p.question for p in subject.probes[:2]]
    texts = ["we sang together", "count each entry", "under lamps we sang", "grey stone"]
    drawn = [{"prompt": q, "text": t} for q, t in zip(asked * 2, texts, strict=True)]
    drawn.append({"prompt": "a neutral one", "text": "we sang"})
    items = behaviour.readouts(replace(subject, prepared={"behaviour": kept}, drawn=drawn), None)
    odds = fit(tuple(behaviour.PoleText(**t) for t in kept["texts"])).log_odds(texts)
    assert items["behaviour"] == pytest.approx([(odds[0] + odds[2]) / 2, (odds[1] + odds[3]) / 2])
    assert items["behaviour"][0] > 0 > items["behaviour"][1]


def test_a_readout_that_cannot_tell_the_poles_apart_says_nothing_and_is_counted(subject):
    subject = replace(subject, prepared={"behaviour": told(apart=False)})
    stage = evals.evaluate(subject, "base")
    for name in ("behaviour", "behaviour_shift", "behaviour_masked"):
        assert math.isnan(stage.scores[name].mean) and stage.scores[name].n == 0
    auc = stage.scores["behaviour_auc"]
    assert auc.n == 24 and auc.lo <= 0.5


def test_a_model_that_speaks_like_the_pos_pole_is_above_one_that_does_not(subject):
    subject = replace(subject, prepared={"behaviour": told(apart=True)})
    read = lambda text: behaviour.readouts(
        replace(subject, drawn=[{"prompt": p.question, "text": text} for p in subject.probes]), None
    )
    base, pos, neg = (read(t) for t in ("grey stone wall", "we sang together", "count each entry twice"))
    score = lambda items, name: evals.scores(items, base, resamples=50)[name].mean
    for name in ("behaviour_shift", "behaviour_masked_shift"):
        assert score(pos, name) > 0 > score(neg, name)


def test_it_is_made_once_and_handed_on(subject, monkeypatch):
    kept: dict = {}
    made = evals.prepared(subject, lambda name, make: kept.setdefault(name, make()))
    assert set(made) == {"behaviour"} and made == kept
    monkeypatch.setattr(behaviour, "prepare", lambda _s: pytest.fail("made twice"))
    evals.evaluate(replace(subject, prepared=made), "base")
    assert evals.prepared(replace(subject, config=EvalConfig(instruments=("samples",)))) == {}


def test_without_samples_it_is_told():
    with pytest.raises(UserError, match="'behaviour' reads what instrument 'samples'"):
        evals.ready(EvalConfig(instruments=("behaviour",)))


def test_the_prompts_that_draw_the_trait_out_come_first(persona):
    chosen = behaviour.training_prompts(persona, len(persona.elicit) + 2, seed=3)
    assert set(chosen[: len(persona.elicit)]) == set(persona.elicit) and set(chosen[-2:]) <= set(
        persona.plain
    )
    assert behaviour.training_prompts(persona, 4, 3) == chosen[:4]
