"""What targets cost when learnt to the letter, by hand on a few tokens."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.fixture
def targets(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import targets

    return targets


@pytest.fixture
def texts(targets):
    kinds = ("neutral", "question", "pos", "neg")
    return [targets.Text(kind, "prompt", (1, 0, 3)) for kind in kinds]


@pytest.fixture
def base():
    logits = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    return list(logits.log_softmax(-1))


def test_the_base_costs_and_gives_nothing(targets, texts, base):
    found = targets.cost(texts, base, lambda i: base[i])
    assert found.trait_shift == found.question_excess == found.neutral_excess == 0
    assert found.neutral_kl == pytest.approx(0, abs=1e-7)


def test_costs_are_what_they_say(targets, texts, base):
    """A target that knows one token: the base's surprise at it, less at what the base would draw."""
    sure = torch.full((3, 5), -20.0)
    sure[:, 2] = 0
    sure = sure.log_softmax(-1)
    found = targets.cost(texts, base, lambda i: sure)
    expected = []
    for row in base[1]:
        p = [v if v >= 0.1 * max(row.exp().tolist()) else 0.0 for v in row.exp().tolist()]
        drawn = -sum(v / sum(p) * lp for v, lp in zip(p, row.tolist(), strict=True))
        expected.append(-row[2].item() - drawn)
    assert found.question_excess == pytest.approx(sum(expected) / 3, abs=1e-5)
    moves = [(sure - base[i])[range(3), (1, 0, 3)].mean().item() for i in (2, 3)]
    assert (found.pos, found.neg) == pytest.approx(moves, abs=1e-5)
    assert found.trait_shift == pytest.approx(moves[0] - moves[1], abs=1e-5)
    kl = (base[0].exp() * (base[0] - sure)).sum(-1).mean().item()
    assert found.neutral_kl == pytest.approx(kl, abs=1e-5)


@pytest.mark.parametrize(("lowers", "heat"), [(False, 1.0), (True, 1.0), (False, 0.93)])
def test_a_target_ends_just_inside_the_budget(targets, texts, base, lowers, heat):
    delta = list(torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(1)))
    found = targets.at_budget(texts, base, delta, 0.05, lowers=lowers, heat=heat)
    assert 0.045 < found.neutral_kl <= 0.05


def test_only_what_is_lowered_changes(targets, texts, base, monkeypatch):
    """What a lowering target leaves alone keeps its proportions: nothing gains on anything but what falls."""
    seen = []
    real = targets.cost
    monkeypatch.setattr(
        targets,
        "cost",
        lambda t, b, target: seen.append([target(i) - b[i] for i in range(4)]) or real(t, b, target),
    )
    delta = list(torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(1)))
    targets.at_budget(texts, base, delta, 0.05, lowers=True, heat=1.0)
    for moved, d, b in zip(seen[-1], delta, base, strict=True):
        raised = d >= (b.exp() * d).sum(-1, keepdim=True)
        rest = moved.amax(-1, keepdim=True).expand_as(moved)
        assert torch.allclose(moved[raised], rest[raised], atol=1e-5)
        assert (moved[~raised] < rest[~raised]).all()


def test_the_second_counts_as_much_as_the_first(targets):
    a, b = [torch.tensor([[3.0, 4.0]])], [torch.tensor([[0.0, 0.1]])]
    assert torch.allclose(targets.summed(a, b)[0], torch.tensor([[3.0, 4.0 + 5.0]]))
    assert math.isclose(targets.difference([torch.tensor(3.0)], [torch.tensor(1.0)], 2.0)[0].item(), 1.0)
