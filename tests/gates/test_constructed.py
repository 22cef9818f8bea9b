"""Models with a known answer, measured by the project's own instruments: the gates must say of each what it is.

Slow for a test: every model is measured by every instrument, once a session. The tiny model that speaks a language with a
meaning is stored.
"""

from __future__ import annotations

import pytest

import toy_world
from steer_heal_love import gates

ASKED = ("heal", "prompt", "null")
"""the gates that a model has to pass to be called healed"""
SAYS = {
    "collapsed": {"heal": {"collapsed"}, "prompt": {"collapsed"}, "loop": {"collapsed"}},
    "cooled": {
        "heal": {"cooled"},
        "prompt": {"cooled"},
        "loop": {"cooled"},
        "null": {"below", "not_told_apart"},
    },
    "biased": {"heal": {"outdone", "no_better"}, "prompt": {"wins"}, "null": {"not_told_apart"}},
    "random": {"heal": {"outdone", "no_better", "nothing", "half", "broken"}, "prompt": {"wins", "broken"}},
    "prompted": {"prompt": {"even", "wins"}, "null": {"above"}},
    "steered_less": {"heal": {"outdone", "no_better"}, "prompt": {"wins"}},
    "healed": {"heal": {"healed"}, "prompt": {"beaten"}, "null": {"above"}, "relevance": {"kept", "unclear"}},
    "deaf": {"heal": {"broken", "half"}, "relevance": {"lost"}},
}
"""what a gate may say of a model; where two rows are named, both are right and the interval decides"""


@pytest.fixture(scope="module")
def verdicts():
    import toy_models

    runs = toy_models.Lab(toy_models.taught_world()).runs()
    return {name: {g.gate: g for g in gates.judge(e)} for name, e in runs.items()}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("model", SAYS)
def test_a_model_with_a_known_answer_gets_it(verdicts, model):
    found = verdicts[model]
    assert all(found[gate].outcome in rows for gate, rows in SAYS[model].items()), {
        gate: (found[gate].outcome, found[gate].observed) for gate in SAYS[model]
    }


@pytest.mark.timeout(900)
def test_only_the_healed_model_passes_every_gate(verdicts):
    passing = {
        name
        for name, found in verdicts.items()
        if all(gate in found and found[gate].verdict == "pass" for gate in ASKED)
    }
    assert passing == {"healed"} and set(verdicts) == set(SAYS)


def test_the_stored_model_speaks_its_world():
    few = toy_world.nll(toy_world.trained(steps=8), 40, seed=1)
    assert toy_world.nll(toy_world.stored(), 120, seed=1) < 0.45 < 1.0 < few


@pytest.mark.timeout(900)
def test_steering_the_toy_world_moves_both_halves(verdicts):
    assert {found["steer"].outcome for found in verdicts.values()} == {"moves"}
