"""The imitation of FP8: what it rounds, and that a model is as it was afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

IDS = torch.arange(3, 27).reshape(3, 8)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import eight_bits

    return eight_bits


def test_each_row_keeps_three_bits_after_the_leading_one_at_its_own_scale(bench):
    x = torch.tensor([[1.0, 0.5, 0.53], [448e3, 1e3, 0.0], [0.0, 0.0, 0.0]])
    found = bench.rounded(x)
    assert torch.allclose(found, x, rtol=2**-4, atol=0) and not torch.equal(found, x)
    assert found[0, 0] == 1.0 and found[1, 0] == 448e3 and not found[2].any()


def test_the_model_reads_otherwise_inside_and_is_as_it_was_afterwards(bench, model, bits):
    before, plain = bits(model), model(input_ids=IDS).logits
    with pytest.raises(KeyError), bench.in_eight_bits(model):
        inside = model(input_ids=IDS).logits
        raise KeyError
    assert 0 < (inside - plain).norm() / plain.norm() < 0.4
    assert torch.equal(model(input_ids=IDS).logits, plain)
    now = model.state_dict()
    assert all(torch.equal(now[n], t) for n, t in before.items())
