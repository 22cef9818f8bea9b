"""Two processes give what one does: tokens to the last, readings in the order of the rows, a heal's gradient."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from steer_heal_love import replicas
from steer_heal_love.ground import team
from steer_heal_love.replicas.local import Machine

sys.path.insert(0, str(Path(__file__).parent))
SCRIPT = Path(__file__).parent / "shared_work.py"


@pytest.fixture(scope="module")
def found() -> SimpleNamespace:
    """The same work by one process, by two of which this is one, and what is said when the other is killed."""
    from shared_work import Work

    work = Work()
    alone = work.all()
    plan = replicas.Plan(2, 1, cuda=False, ray="", trust_remote_code=False)
    machine = Machine(plan, [sys.executable, str(SCRIPT)])
    said = lambda ended: replicas.lost(ended, 2, Path("runs/RUN"))
    with pytest.raises(team.Lost) as lost, replicas.met(plan, machine, said):
        sizes = team.size(), team.leads()
        together = work.all()
        team.wait()
        machine.processes[1].kill()
        team.wait()
        team.wait()
    return SimpleNamespace(alone=alone, together=together, lost=str(lost.value), sizes=sizes, machine=machine)


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and torch.allclose(one, other, rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("name", ["greedy", "sampled"])
def test_every_token_is_the_one_process_s(found, name):
    assert found.sizes == (2, True)
    assert found.together[name] == found.alone[name] and len(set(found.alone[name])) > 3


def test_steering_that_adapts_goes_back_as_often_and_reads_as_many_tokens(found):
    answers, rewinds, read = found.together["adapting"]
    assert (answers, rewinds) == found.alone["adapting"][:2] and any(rewinds)
    assert read > 0


@pytest.mark.parametrize(
    "name", ["token_nll", "token_order", "hidden_states", "answer_means", "states", "branch_nll"]
)
def test_readings_come_back_in_the_order_of_the_rows(found, name):
    one, two = found.alone["readings"][name], found.together["readings"][name]
    assert len(one) == len(two) and all(map(close, one, two))
    assert found.together["nothing"] == []


@pytest.mark.parametrize("name", ["step", "lone step"])
def test_a_heal_s_gradient_is_the_one_process_s(found, name):
    """Also where a process has no row of a step at all."""
    (terms, grads, held), (terms_2, grads_2, held_2) = found.alone[name], found.together[name]
    assert terms.keys() == terms_2.keys() and terms == pytest.approx(terms_2, rel=1e-4)
    assert all(map(close, grads, grads_2)) and sum(g.abs().sum() for g in grads) > 0
    assert held == pytest.approx(held_2, rel=1e-4)


def test_a_killed_process_is_one_clear_error(found):
    assert (
        "replica 1 of 0 to 1 was killed by signal 9" in found.lost
        and "shl run --resume runs/RUN" in found.lost
    )
    assert found.machine.processes[1].poll() is not None and not Path(found.machine.folder.name).exists()
    assert team.size() == 1 and not torch.distributed.is_initialized()


def test_alone_everything_is_the_identity():
    rows = [torch.ones(2), torch.zeros(1)]
    with team.sharing([1, 0]) as mine:
        assert mine == [1, 0]
    assert team.filled(rows, mine) is rows and team.summed({"a": 1.0}, ["a", "b"]) == {"a": 1.0}


def test_who_waits_asks_whether_the_others_live(monkeypatch):
    """For as long as a GPU's work isn't done, which may be for ever where another process is gone."""

    def alive():
        raise team.Lost("process 1 is gone")

    monkeypatch.setattr(team, "_team", team.Team(0, 2, alive))
    with pytest.raises(team.Lost, match="process 1"):
        team._until(lambda: False)
    team._until(lambda: True)
    here = torch.ones(2)
    assert team.fetched(here)() is here
