"""A text that a model has read is not read by it again, and what follows from its states is what reading would give."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from steer_heal_love.ground import scoring, state_cache
from steer_heal_love.ground.divergence import forward_kl
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.ground.models import head
from steer_heal_love.ground.scoring import hidden_states, log_likelihood, token_divergence, token_nll
from steer_heal_love.ground.state_cache import StateCache, from_states


@pytest.fixture
def read(monkeypatch) -> list[int]:
    """How many sequences each call of the reader was given."""
    seen: list[int] = []
    real = state_cache.hidden_states
    monkeypatch.setattr(
        state_cache, "hidden_states", lambda model, s, **how: seen.append(len(s)) or real(model, s, **how)
    )
    return seen


def test_a_text_is_read_once_by_each_model(model, sequences, random_adapter, read):
    cache, change, told = StateCache(), random_adapter(model, 1, size=0.1), []
    entered = []

    @contextmanager
    def student():
        entered.append(1)
        with adapted(model, change.factors, change.scaling):
            yield

    ask = lambda name, s, **how: cache.read(name, model, s, batch_tokens=64, advance=told.append, **how)
    base = ask("base", sequences[:3])
    more = ask("base", [sequences[4], *sequences[1:3], sequences[4]])
    healed = ask("healed", sequences[:3], context=student)
    assert torch.equal(ask("healed", sequences[:1], context=student)[0], healed[0])
    assert read == [3, 1, 3] and len(entered) == 1
    assert sum(told) == 3 + 4 + 3 + 1, "what needn't be read counts as done"
    alone = hidden_states(model, sequences)
    for found, at in zip([*base, *more], [0, 1, 2, 4, 1, 2, 4], strict=True):
        assert torch.allclose(found, alone[at], atol=1e-5)
    assert not torch.allclose(healed[0], base[0], atol=1e-3)


def test_only_the_models_that_are_kept_are_remembered(model, sequences, read):
    cache = StateCache()
    for name in ("round 0", "round 1"):
        cache.read(name, model, sequences, batch_tokens=64)
    cache.keep("round 1", "round 7")
    for name in ("round 0", "round 1"):
        cache.read(name, model, sequences, batch_tokens=64)
    assert read == [5, 5, 5]


@pytest.mark.parametrize("chunk", [1, 4, 128])
def test_values_from_states_are_those_of_reading(model, sequences, monkeypatch, chunk):
    monkeypatch.setattr(scoring, "CHUNK", chunk)
    states = hidden_states(model, sequences)
    targets = [torch.tensor(s.answer) for s in sequences]
    found = from_states(model, [states, targets], lambda h, y: log_likelihood(model, h, y))
    for ours, nll in zip(found, token_nll(model, sequences), strict=True):
        assert torch.allclose(-ours, nll, atol=1e-5)
    moved = [h * 1.1 for h in states]
    kl = from_states(model, [moved, states], lambda p, q: forward_kl(head(model, p), head(model, q)))
    for ours, theirs in zip(kl, token_divergence(model, sequences, moved), strict=True):
        assert ours.min() > 0 and torch.allclose(ours, theirs, atol=1e-5)
    assert from_states(model, [[], []], lambda p, _q: p) == []


def test_states_that_another_process_has_are_not_taken_for_none(model, sequences):
    states = hidden_states(model, sequences)
    with pytest.raises(RuntimeError, match="another process"):
        from_states(model, [[None, *states[1:]]], lambda h: head(model, h))
