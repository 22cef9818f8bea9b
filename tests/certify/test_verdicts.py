"""Four adapters with a known certificate, three seeds each, in a toy world: each gets its verdict.

The toy world is shared with `tests/gates/test_constructed.py`; what is measured on it here is measured once a session.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from steer_heal_love.gates import Evidence
from steer_heal_love.gates.certificate import KINDS, certified, with_few

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def world():
    """The lab, with more neutral answers than usual: a healthy model's drift is small beside what they scatter."""
    import toy_models

    lab = toy_models.Lab(toy_models.taught_world(), answers=12)
    return SimpleNamespace(lab=lab, told=lab.measured("prompt", system=lab.w.persona.system("pos")))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["trait", "unsteered", "random", "copies"])
def test_an_adapter_of_known_make_gets_its_certificate(world, name):
    import four

    make, expected = four.FOUR[name]
    seen = {}
    for seed in SEEDS:
        model = world.lab.measured("healed", world.lab.on(make(world.lab, seed)))
        stage = with_few(model, world.lab.base, resamples=400)
        gate = certified(Evidence(world.lab.w.persona, [world.lab.base, world.told, stage], resamples=400))
        seen[seed] = KINDS[gate.outcome], gate.observed
        assert (gate.verdict == "pass") == (name == "trait"), seen
    assert all(kind in expected for kind, _ in seen.values()), seen
