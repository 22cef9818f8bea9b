"""What the experiments on heals share: a second heal stands on the first, and its barrier on what it was told to."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from steer_heal_love.config import HealConfig
from steer_heal_love.ground.scoring import hidden_states
from steer_heal_love.ground.weights import folded
from steer_heal_love.nouns import Completion

ROOT = Path(__file__).parents[1]


@pytest.fixture
def heals(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import heals

    return heals


@pytest.mark.parametrize("reference", ["base", "previous"])
def test_a_second_heals_barrier_is_measured_from_the_base_or_from_the_student(
    heals, model, sequences, random_adapter, monkeypatch, reference
):
    first, met = random_adapter(model, 1), {}

    def caught(model, examples, *_args, **_kwargs):
        met["examples"], met["states"] = examples, hidden_states(model, [e.tokens for e in examples])
        return first, None

    monkeypatch.setattr(heals, "heal", caught)
    config = SimpleNamespace(heal=HealConfig(soft=0.0, anchor=0.0), batch_tokens=512)
    run = SimpleNamespace(model=model, config=config, base=SimpleNamespace(anchor=[]), seed=lambda *_: 1)
    texts = [Completion("", t, "", 0.0, True) for t in sequences]
    heals.Lab(run, None, 0.0, {}).heal(texts, {"reference": reference}, after=[first])

    base = hidden_states(model, sequences)
    with folded(model, [first]):
        student = hidden_states(model, sequences)
    assert not torch.allclose(torch.cat(base), torch.cat(student), atol=1e-3)
    wanted = {"base": base, "previous": student}[reference]
    torch.testing.assert_close(torch.cat([e.reference for e in met["examples"]]), torch.cat(wanted))
    torch.testing.assert_close(torch.cat(met["states"]), torch.cat(student))


@pytest.mark.parametrize("spent", [0.0, 0.01])
def test_an_update_is_scaled_to_a_drift_of_which_part_is_spent(heals, spent):
    scale = heals.root_scale(lambda c: (spent**0.5 + 0.3 * c) ** 2, 0.02, spent)
    assert scale == pytest.approx((0.02**0.5 - spent**0.5) / 0.3, rel=0.05)
