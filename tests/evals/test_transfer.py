"""Transfer: zero for the base itself, whole for a student that is the steered base, and honest chance."""

from __future__ import annotations

import math
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch

from steer_heal_love import evals
from steer_heal_love.config import EvalConfig
from steer_heal_love.evals import transfer
from steer_heal_love.ground import state_cache
from steer_heal_love.ground.hooks import adapted, added
from steer_heal_love.ground.scoring import hidden_states, token_divergence
from steer_heal_love.ground.state_cache import StateCache
from steer_heal_love.nouns import Stage, Tokens

CONTEXTS = [
    "What about the cat?",
    "Name a mat.",
    "Is there time?",
    "Who is alone?",
    "What would you say?",
    "And then?",
]
CONFIG = EvalConfig(instruments=("probes",), probes=4, resamples=50)


@pytest.fixture
def subject(tiny, persona) -> evals.Subject:
    draw = torch.Generator().manual_seed(3)
    texts = ["Name a loaf.", "What is bread?"]
    answers = [tuple(torch.randint(3, len(tiny.tok), (n,), generator=draw).tolist()) for n in (7, 5)]
    bare = evals.Subject(tiny.model, tiny.tok, persona, CONFIG, [], seed=1)
    tokens = [Tokens(bare.prompt(t), a) for t, a in zip(texts, answers, strict=True)]
    neutral = list(zip(texts, tokens, hidden_states(tiny.model, tokens), strict=True))
    return evals.Subject(tiny.model, tiny.tok, persona, CONFIG, neutral, seed=1)


@pytest.fixture
def student(subject, random_adapter):
    change = random_adapter(subject.model, 1, size=0.1)
    return lambda: adapted(subject.model, change.factors, change.scaling)


def measured(subject: evals.Subject, context) -> Stage:
    with context():
        trait = evals.measure(subject)["probes"]["trait"]
    samples = [{"prompt": text, "ids": list(tokens.answer)} for text, tokens, _ in subject.neutral]
    return Stage(0, "healed", {}, {"trait": trait}, samples)


def steering(subject: evals.Subject, layer: int, size: float) -> dict[int, torch.Tensor]:
    draw = torch.Generator().manual_seed(7)
    return {layer: size * torch.randn(subject.model.config.hidden_size, generator=draw)}


def test_a_student_that_is_the_base_has_moved_nowhere(subject) -> None:
    shift, base = transfer.own_shift(subject, CONTEXTS, [1, 2], nullcontext)
    assert all(v.abs().max() == 0 for v in shift.values())
    found = transfer.alignment(shift, steering(subject, 2, 1.0), base, seed=0)
    assert math.isnan(found["cosine"]) and found["carried_dose"] == 0.0
    plain = measured(subject, nullcontext)
    for kinds in transfer.ledger(subject, nullcontext, nullcontext, plain).values():
        for kl in kinds.values():
            assert kl["mean_nats"].mean == pytest.approx(0.0, abs=1e-6) == kl["p95_nats"]
    caused = transfer.causes(subject, shift, nullcontext, plain, plain, seed=0)
    assert math.isnan(caused["sufficient_share"]) and math.isnan(caused["sufficient"].lo)
    assert caused["base_plus_shift"].mean == 0.0


def test_a_student_that_is_the_steered_base_carries_the_vector_whole(subject) -> None:
    v = steering(subject, 2, 0.5)
    student = lambda: added(subject.model, v, 2.0)
    shift, base = transfer.own_shift(subject, CONTEXTS, [2], student)
    found = transfer.alignment(shift, v, base, seed=0)
    assert found["cosine"] == pytest.approx(1.0, abs=1e-4)
    assert found["cosine_by_layer"] == pytest.approx([1.0], abs=1e-4)
    assert found["carried_dose"] == pytest.approx(2.0, abs=1e-3)
    assert found["random"]["largest"] < 0.9 and found["halves"]["n"] == transfer.DRAWS
    assert found["halves"]["largest_by_layer"] == pytest.approx([found["halves"]["largest"]])
    assert found["random"]["sd"] == pytest.approx(1 / math.sqrt(v[2].numel()), rel=0.5)


def test_the_shift_of_a_bias_is_sufficient_and_necessary(subject) -> None:
    """A student made by adding v at one layer: putting s into the base makes it, taking s out unmakes it."""
    v = steering(subject, 2, 0.5)
    block = subject.model.model.layers[2].mlp.down_proj

    @contextmanager
    def biased():
        block.bias = torch.nn.Parameter(v[2].clone(), requires_grad=False)
        yield
        block.bias = None

    shift, _ = transfer.own_shift(subject, CONTEXTS, [1, 2], biased)
    assert shift[1].abs().max() == 0
    caused = transfer.causes(
        subject, shift, biased, measured(subject, nullcontext), measured(subject, biased), seed=0
    )
    assert caused["layer"] == 2 and caused["student"].mean != 0
    assert caused["sufficient_share"] == pytest.approx(1.0, abs=1e-3)
    assert caused["remaining_share"] == pytest.approx(0.0, abs=1e-3)
    assert caused["base_plus_random"].mean != pytest.approx(caused["student"].mean, rel=0.05)


def test_shares_hold_an_interval_over_items_each_beside_its_own(subject, monkeypatch) -> None:
    """Items of known shares: 60% of each item's own shift has no doubt in it, 10% with noise a little."""
    g = np.random.default_rng(0)
    base, moved = g.normal(size=40), 1 + g.normal(size=40)
    read = iter((base + 0.6 * moved, base + 0.1 * moved + 0.2 * g.normal(size=40), base))
    monkeypatch.setattr(transfer, "probes", lambda _subject: {"trait": next(read).tolist()})
    was, now = (Stage(0, "healed", {}, {"trait": t.tolist()}) for t in (base, base + moved))
    caused = transfer.causes(subject, steering(subject, 2, 0.5), nullcontext, was, now, seed=0)
    whole, part = caused["sufficient"], caused["remaining"]
    assert (whole.lo, whole.mean, whole.hi) == pytest.approx((0.6, 0.6, 0.6)) and whole.n == 40
    assert 0.05 < part.hi - part.lo < 0.3 and part.lo < 0.1 < part.hi
    assert (caused["sufficient_share"], caused["remaining_share"]) == (whole.mean, part.mean)
    assert caused["base_plus_random"].mean == 0.0


def test_the_ledger_is_the_divergence_in_the_named_direction(subject, student) -> None:
    healed = measured(subject, student)
    found = transfer.ledger(subject, student, nullcontext, healed)
    assert found["round"] == found["total"], "in round 0 the round before is the base"
    tokens = [tokens for _, tokens, _ in subject.neutral]
    with student():
        parts = token_divergence(subject.model, tokens, [h for _, _, h in subject.neutral])
        ours = hidden_states(subject.model, tokens)
    neutral, own = found["total"]["neutral"], found["total"]["own"]
    expected = sum(p.mean().item() for p in parts) / len(parts)
    assert neutral["mean_nats"].mean == pytest.approx(expected, rel=1e-4)
    assert neutral["tokens"] == sum(len(t.answer) for t in tokens)
    assert neutral["p95_nats"] == pytest.approx(torch.cat(parts).quantile(0.95).item(), rel=1e-4)
    # The same sequences stand for both texts, so own is the same pair of models the other way round.
    back = token_divergence(subject.model, tokens, ours)
    assert own["mean_nats"].mean == pytest.approx(sum(p.mean().item() for p in back) / len(back), rel=1e-4)
    assert own["mean_nats"].lo != pytest.approx(neutral["mean_nats"].lo, rel=1e-2)


def test_what_an_evaluation_has_read_the_ledger_does_not_read_again(subject, student, monkeypatch) -> None:
    healed = measured(subject, student)
    plain = transfer.ledger(subject, student, student, healed)
    known = replace(subject, cache=StateCache(), known_as="round 1")
    tokens = [tokens for _, tokens, _ in subject.neutral]
    with student():
        known.states(evals.NEUTRAL, tokens)
        known.states(evals.OWN, tokens)
    known.base_states(tokens)
    read = []
    real = state_cache.hidden_states
    monkeypatch.setattr(
        state_cache, "hidden_states", lambda model, s, **how: read.append(len(s)) or real(model, s, **how)
    )
    done: list[int] = []
    again = transfer.ledger(known, student, student, healed, done.append, before="round 0")
    assert read == [2, 2], "only by the student before"
    assert sum(done) == 2 + 2 + 2 + 2 + 2
    assert again == plain
    first = transfer.ledger(known, student, None, healed, done.append)
    assert read == [2, 2] and first["round"] == first["total"] == plain["total"] and sum(done) == 20


def test_causes_read_the_answers_of_the_poles_alone(subject, student, monkeypatch) -> None:
    asked = []
    real = transfer.probes
    monkeypatch.setattr(transfer, "probes", lambda s: asked.append(s.config.third_answers) or real(s))
    shift, _ = transfer.own_shift(subject, CONTEXTS, [1, 2], student)
    transfer.causes(
        subject, shift, student, measured(subject, nullcontext), measured(subject, student), seed=0
    )
    assert asked == [False] * 3


def test_a_base_that_was_read_is_not_read_again(subject, student, monkeypatch) -> None:
    shift, base = transfer.own_shift(subject, CONTEXTS, [1, 2], student)
    read = []
    real = transfer.states
    monkeypatch.setattr(transfer, "states", lambda *a: read.append(1) or real(*a))
    again, same = transfer.own_shift(subject, CONTEXTS, [1, 2], student, base=base)
    assert read == [1] and same is base and all(torch.equal(shift[i], again[i]) for i in shift)


def test_rounds_are_told_apart_from_the_total(subject, student) -> None:
    found = transfer.ledger(subject, student, student, measured(subject, student))
    assert found["round"]["neutral"]["mean_nats"].mean == pytest.approx(0.0, abs=1e-6)
    assert found["total"]["neutral"]["mean_nats"].mean > 1e-3


def test_no_samples_are_counted_as_none(subject, student) -> None:
    bare = Stage(0, "healed", {}, {}, [])
    own = transfer.ledger(subject, student, nullcontext, bare)["total"]["own"]
    assert own["tokens"] == 0 and math.isnan(own["mean_nats"].mean) and own["mean_nats"].n == 0


def test_chance_is_seeded(subject) -> None:
    v = steering(subject, 2, 1.0)
    one, again, other = (transfer.gaussian(v, seed, 2) for seed in (1, 1, 2))
    assert torch.equal(one[0][2], again[0][2]) and not torch.equal(one[0][2], other[0][2])
    assert not torch.equal(one[0][2], one[1][2])
