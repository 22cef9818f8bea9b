"""What doesn't fit is halved, and nothing is lost or done twice over."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from steer_heal_love.config import HealConfig
from steer_heal_love.ground import decode, memory, scoring
from steer_heal_love.ground.errors import UserError
from steer_heal_love.heal import optimise
from steer_heal_love.heal.lora import fresh
from steer_heal_love.heal.optimise import Trainer

FULL = torch.OutOfMemoryError("injected")


def small(most, work, tried):
    """`work` on a device that holds `most` rows."""

    def run(rows):
        tried.append(len(rows))
        if len(rows) > most:
            raise FULL
        work(rows)

    return run


@pytest.mark.parametrize("most", [1, 3, 4, 64])
def test_every_row_is_worked_on_once_whatever_fits(most):
    batches, done, tried = [list(range(10)), [10, 11], list(range(12, 30))], [], []
    if most < 18:
        with pytest.warns(UserWarning, match=r"don't fit"):
            memory.halving(batches, small(most, done.extend, tried))
    else:
        memory.halving(batches, small(most, done.extend, tried))
    assert done == list(range(30))
    assert sum(n > most for n in tried) <= 4, "what did not fit once is not tried again"


def test_one_row_that_does_not_fit_is_the_callers_to_hear_of():
    with pytest.raises(torch.OutOfMemoryError), pytest.warns(UserWarning):
        memory.halving([[1, 2]], small(0, print, []))


@pytest.mark.parametrize("most", [2, 64])
@pytest.mark.filterwarnings("ignore:.*don't fit")
def test_what_a_batch_gave_is_put_away_once_the_next_was_looked_at(most):
    told, put = [], []

    def look(batch):
        if len(batch) > most:
            raise FULL
        told.append(("look", *batch))
        return [torch.tensor(batch)]

    def away(batch, found):
        assert found[0].tolist() == batch
        told.append(("put", *batch))
        put.extend(batch)

    memory.one_ahead([[1, 2], [3, 4], [5, 6, 7, 8]], look, away)
    assert put == list(range(1, 9)), "every row once, in order, however batches were halved"
    assert told[:4] == [("look", 1, 2), ("look", 3, 4), ("put", 1, 2), ("look", *((5, 6, 7, 8)[:most]))]
    assert told[-1][0] == "put", "the last is put away too"


@pytest.mark.filterwarnings("ignore:.*don't fit")
def test_what_could_not_be_put_away_at_first_is_not_lost():
    put, failed = [], []

    def away(batch, _found):
        if batch == [1, 2] and not failed:
            failed.append(True)
            raise FULL
        put.extend(batch)

    memory.one_ahead([[1, 2], [3, 4], [5]], lambda batch: [torch.tensor(batch)], away)
    assert failed and put == [1, 2, 3, 4, 5]


def test_a_limit_needs_a_cuda_device():
    memory.limit(0.0, "cpu")
    with pytest.raises(UserError, match="CUDA"):
        memory.limit(24.0, "cpu")


def narrow(monkeypatch, where, name, most, rows):
    """Make `where.name` fail as a full device does, for more than `most` rows."""
    real, failed = getattr(where, name), []

    def called(*args, **kwargs):
        if rows(args) > most:
            failed.append(rows(args))
            raise FULL
        return real(*args, **kwargs)

    monkeypatch.setattr(where, name, called)
    return failed


@pytest.mark.filterwarnings("ignore:.*don't fit")
def test_readings_and_answers_are_those_of_a_device_that_holds_all(model, sequences, monkeypatch):
    prompts = [s.prompt for s in sequences]
    how = {"ends": frozenset(range(3, 300, 12)), "max_new_tokens": 6, "seed": 3, "min_p": 0.02}
    answers, nll = decode.sample(model, prompts, **how), scoring.token_nll(model, sequences)
    failed = narrow(monkeypatch, decode, "_decode", 2, lambda a: len(a[1]))
    failed += narrow(monkeypatch, scoring, "read_hidden", 2, lambda a: len(a[1]))
    assert decode.sample(model, prompts, **how) == answers
    for now, before in zip(scoring.token_nll(model, sequences), nll, strict=True):
        torch.testing.assert_close(now, before)


def test_a_step_that_runs_out_halfway_leaves_no_gradient_behind(model, monkeypatch):
    start = dataclasses.replace(HealConfig(), micro_batch=8)
    trainer = Trainer(model, fresh(model, rank=2, alpha=4.0, share=(0.0, 1.0), seed=0), start, 1)
    factor, passes = trainer.parameters[0], []

    def backward(_model, kept, _anchor, config, _weights, _student):
        passes.append(config.micro_batch)
        factor.grad = (factor.grad if factor.grad is not None else 0) + torch.ones_like(factor)
        if config.micro_batch > 2:
            raise FULL
        return {"nll": torch.tensor(1.5)}

    monkeypatch.setattr(optimise, "backward", backward)
    with pytest.warns(UserWarning, match="4 at a time"):
        terms = trainer.gradient([], [])()
    assert passes == [8, 4, 2] and trainer.config.micro_batch == 2 and terms == {"nll": 1.5}
    assert torch.equal(factor.grad, torch.ones_like(factor))
