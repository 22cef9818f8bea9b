"""KL along a model's own text, its entropy, and what the base's output layer is while a context changes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from steer_heal_love import evals
from steer_heal_love.config import EvalConfig
from steer_heal_love.evals import neutral
from steer_heal_love.ground.chat import prompt_ids
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.nouns import Tokens

CONFIG = EvalConfig(
    instruments=("samples", "own_kl"), probes=3, sample_prompts=2, sample_tokens=8, resamples=50, min_p=0.0
)
Context = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def subject(tiny, persona) -> evals.Subject:
    return evals.Subject(tiny.model, tiny.tok, persona, CONFIG, [], seed=1)


@contextmanager
def spoken(model, change) -> Iterator[None]:
    """The output layer's values changed, as a bias or a temperature changes them."""
    hook = model.get_output_embeddings().register_forward_hook(lambda _m, _a, logits: change(logits))
    try:
        yield
    finally:
        hook.remove()


def measured(subject: evals.Subject, *contexts: Context) -> evals.Stage:
    base = evals.evaluate(subject, "base")
    return evals.evaluate(replace(subject, base_samples=base.samples), "healed", *contexts, base=base)


def by_hand(subject: evals.Subject, samples: list[dict], context: Context) -> tuple[list[float], list[float]]:
    """KL(model‖base) and entropy from both models' whole logits, one sample at a time."""
    kl, spread = [], []
    for m in samples:
        rows = []
        prompt = prompt_ids(subject.tok, m["prompt"])
        ids = torch.tensor([[*prompt, *m["ids"]]])
        for entered in (context, None):
            if entered:
                with entered(), torch.no_grad():
                    logits = subject.model(ids).logits[0]
            else:
                with torch.no_grad():
                    logits = subject.model(ids).logits[0]
            rows.append(logits[len(prompt) - 1 : -1].double().log_softmax(-1).numpy())
        p, q = rows
        kl.append(float((np.exp(p) * (p - q)).sum(-1).mean()))
        spread.append(float(-(np.exp(p) * p).sum(-1).mean()))
    return kl, spread


@pytest.fixture
def changes(subject, random_adapter) -> dict[str, Context]:
    adapter = random_adapter(subject.model, 3)
    bias = torch.randn(len(subject.tok), generator=torch.Generator().manual_seed(2))
    return {
        "adapter": lambda: adapted(subject.model, adapter.factors, adapter.scaling),
        "bias": lambda: spoken(subject.model, lambda logits: logits + bias),
        "cooled": lambda: spoken(subject.model, lambda logits: logits / 0.7),
    }


@pytest.mark.parametrize("name", ["adapter", "bias", "cooled"])
def test_it_is_the_mean_divergence_from_whole_distributions(subject, changes, name) -> None:
    stage = measured(subject, changes[name])
    kl, spread = by_hand(subject, stage.samples, changes[name])
    assert stage.items["own_kl"] == pytest.approx(kl, abs=1e-4)
    assert stage.items["own_entropy"] == pytest.approx(spread, abs=1e-4)
    assert min(kl) > 1e-3
    assert stage.items["own_kl.probes"] + stage.items["own_kl.neutral"] == stage.items["own_kl"]


def test_the_base_has_none_and_a_cooled_one_less_entropy(subject, changes) -> None:
    base = evals.evaluate(subject, "base")
    assert base.items["own_kl"] == pytest.approx([0.0] * len(base.samples), abs=1e-6)
    cooled = measured(subject, changes["cooled"])
    assert cooled.scores["own_entropy_shift"].hi < 0 < cooled.scores["own_kl"].lo


def test_text_that_plays_safe_is_likelier_to_the_base_and_further_from_it(subject) -> None:
    """What own_excess can be fooled by: a model that always says its likeliest token."""
    sure = measured(subject, lambda: spoken(subject.model, lambda logits: logits / 0.1))
    assert sure.scores["own_excess"].hi < 0 < sure.scores["own_kl"].lo
    assert sure.scores["own_entropy_shift"].hi < 0


def test_a_prompted_model_is_read_after_its_own_prompt_and_the_base_after_the_plain_one(subject) -> None:
    base = evals.evaluate(subject, "base")
    told = replace(subject, system=subject.persona.system("pos"))
    stage = evals.evaluate(told, "prompt", base=base)
    m = stage.samples[0]
    read = [
        Tokens(p, tuple(m["ids"])) for p in (told.prompt(m["prompt"]), prompt_ids(subject.tok, m["prompt"]))
    ]
    with torch.no_grad():
        own, plain = (
            subject.model(torch.tensor([[*t.prompt, *t.answer]]))
            .logits[0][len(t.prompt) - 1 : -1]
            .double()
            .log_softmax(-1)
            for t in read
        )
    assert stage.items["own_kl"][0] == pytest.approx(
        (own.exp() * (own - plain)).sum(-1).mean().item(), abs=1e-4
    )


@pytest.mark.parametrize("name", ["bias", "cooled"])
def test_drift_sees_what_a_context_does_to_the_output_layer(subject, changes, name) -> None:
    """The base's answers are read by the base's own output layer, not by the changed one."""
    texts, answers = ["What is tea?", "Name a bird."], [(5, 6, 7), (8, 9, 10, 11)]
    told = replace(subject, neutral=evals.neutral_reference(subject.model, subject.tok, texts, answers, 512))
    assert neutral.neutral(told)["neutral_kl"] == pytest.approx([0.0, 0.0], abs=1e-6)
    assert neutral.neutral(replace(told, pristine=True))["neutral_kl"] == [0.0, 0.0], "known without reading"
    with changes[name]():
        found = neutral.neutral(told)["neutral_kl"]
    for (_, tokens, _), value in zip(told.neutral, found, strict=True):
        ids = torch.tensor([[*tokens.prompt, *tokens.answer]])
        with torch.no_grad():
            base = subject.model(ids).logits[0][len(tokens.prompt) - 1 : -1].double().log_softmax(-1)
            with changes[name]():
                ours = subject.model(ids).logits[0][len(tokens.prompt) - 1 : -1].double().log_softmax(-1)
        assert value == pytest.approx((base.exp() * (base - ours)).sum(-1).mean().item(), abs=1e-4)


@pytest.mark.parametrize("name", ["own_kl", "text_auc", "judge"])
def test_what_reads_own_samples_asks_for_them(name) -> None:
    with pytest.raises(UserError, match="samples"):
        evals.ready(EvalConfig(instruments=(name,)))
