"""Every row of every table is reached by a run constructed for it, and coherence is read before any ratio."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steer_heal_love import evals, gates
from steer_heal_love.config import EvalConfig
from steer_heal_love.gates import page, show
from steer_heal_love.gates.loop import stop_reason
from steer_heal_love.nouns import FOUNDATIONS, Healing, Persona, Round, Score, Stage, VectorRecord, WalkRecord

APART = {"null", "relevance"}
"""gates with a test file of their own"""
TABLE = {
    f"{name}.{outcome}" for name, g in gates.in_order().items() if name not in APART for outcome in g.rows
}
SPREAD = {"trait": 0.1, "neutral_kl": 0.01, "own_nll": 0.1, "repetition": 0.005, "own_entropy": 0.05}
N = {"trait": 48, "nll_pos": 48, "nll_neg": 48, "neutral_kl": 40}
POS = 0.5
"""share of the trait that is a fall of the pos answers' NLL, where a case doesn't say"""

# A good run: what each stage's items shift by from base. Each case below says what it changes.
PROMPT = {"trait": 0.3, "neutral_kl": 0.1, "own_nll": 0.2}
STEERED = {"trait": 0.6, "neutral_kl": 0.4, "own_nll": 0.4, "mfv.Care": 0.4, "mfv.Liberty": -0.1}
HEALED = [
    {"trait": 0.25, "neutral_kl": 0.02, "own_nll": 0.05, "mfv.Care": 0.15, "mfv.Liberty": -0.05},
    {"trait": 0.45, "neutral_kl": 0.04, "own_nll": 0.1, "mfv.Care": 0.3, "mfv.Liberty": -0.1},
]
HEALING: dict[str, Any] = {
    "steps": [{"step": i, "nll": 1.3 - 0.02 * i, "barrier": 0.02} for i in range(16)],
    "validation": [{"epoch": e, "nll": 1.1 - 0.01 * e} for e in (1, 2, 3)],
    "gradient_ratios": [{"step": 4, "anchor": 0.3}],
    "warnings": [],
    "scale": 0.6,
}
ROUND: dict[str, Any] = {
    "dose": 0.4,
    "response": None,
    "coherent": 60,
    "kept": 50,
    "reasons": {},
    "norm": 1.0,
    "soup_gap": Score.undefined(),
    "made": 96,
    "used": 40,
    "starved": False,
    "survival": {0.1: 0.9, 0.4: 0.6, 1.0: 0.0},
    "soup_share": 0.0,
    "trait_gain": Score(0.1, 0.07, 0.13, 60),
    "cosine_with_first": 0.95,
    "reliability": 0.97,
}
STUCK = {"steps": [{"step": i, "nll": 1.3, "barrier": 0.0} for i in range(16)]}


def stage(round: int, name: Any, base: Stage | None, shifts: dict[str, float], seed: int) -> Stage:
    """Items that every stage shares, shifted, with noise of the stage's own."""
    shared, own = np.random.default_rng(0), np.random.default_rng(seed)
    pos = shifts.get("pos", POS * shifts.get("trait", 0.0))
    shifts = shifts | {"nll_pos": -pos, "nll_neg": shifts.get("trait", 0.0) - pos}
    level = {"own_nll": 1.0, "own_entropy": 1.5, "nll_pos": 2.0, "nll_neg": 3.0}
    items = {}
    for key in (
        "nll_pos",
        "nll_neg",
        "neutral_kl",
        "own_nll",
        "own_entropy",
        "repetition",
        *(f"mfv.{f}" for f in FOUNDATIONS),
    ):
        spread, n = SPREAD.get(key, 0.03), N.get(key, 35)
        start = shared.normal(level[key], 0.3, n) if key in level else np.zeros(n)
        items[key] = (start + shifts.get(key, 0.0) + (base is not None) * own.normal(0, spread, n)).tolist()
    items["trait"] = [n - p for p, n in zip(items["nll_pos"], items["nll_neg"], strict=True)]
    config = EvalConfig(resamples=400)
    return evals.stage(
        round,
        name,
        items,
        base.items if base else items,
        {},
        config=config,
        dose=0.2 if name == "steered" else None,
    )


def evidence(
    persona: Persona,
    *,
    prompt: dict[str, float] | None = None,
    steered: dict[str, float] | None = None,
    healed: list[dict[str, float]] | None = None,
    rounds: list[dict[str, Any]] | None = None,
    healing: dict[str, Any] | None = None,
    intent: dict[str, int] | None = None,
    without: tuple[str, ...] = (),
) -> gates.Evidence:
    """The good run with changes: `healed` and `rounds` a row a round, `healing` in each, `without` scores."""
    persona = replace(persona, intent={"Care": 1} if intent is None else intent)
    base = stage(-1, "base", None, {}, 1)
    stages = [base, stage(-1, "prompt", base, PROMPT | (prompt or {}), 2)]
    changes = [{}, {}] if healed is None else healed
    for n, change in enumerate(changes):
        stages.append(stage(n, "steered", base, STEERED | (steered or {}), 10 + n))
        good = HEALED[min(n, 1)]
        stages.append(stage(n, "healed", base, good | change, 20 + n))
    stages = [replace(s, scores={k: v for k, v in s.scores.items() if k not in without}) for s in stages]
    rows = [
        {"healing": HEALING | (healing or {})} | change for change in rounds or [{} for _ in changes] or [{}]
    ]
    return gates.Evidence(persona, stages, [round_of(n, r) for n, r in enumerate(rows)], resamples=400)


def round_of(number: int, change: dict[str, Any]) -> Round:
    """A good round with changes, each a field of the vector's record, of the walk's, or the heal's record."""
    row = ROUND | change
    part = lambda kind: kind(**{k: row[k] for k in kind.__dataclass_fields__ if k in row})
    return Round(number, part(VectorRecord), part(WalkRecord), Healing(**row["healing"]))


LOST = {"trait": 0.0, "mfv.Care": 0.0}
CIRCLES = {"repetition": 0.2, "own_nll": -0.3}
COOL = {"own_entropy": -0.3, "own_nll": -0.1, "trait": 0.3, "pos": -0.3}
CASES: dict[str, dict[str, Any]] = {
    "steer.moves": {},
    "steer.half": {"steered": {"pos": 0.0}},
    "steer.weak": {"steered": {"trait": 0.0}},
    "steer.noisy": {"steered": {"trait": 0.0}, "rounds": [{"reliability": 0.2}, {}]},
    "steer.broken": {"steered": {"own_nll": 1.4, "trait": 1.5}},
    "steer.collapsed": {"steered": CIRCLES},
    "steer.cooled": {"steered": COOL},
    "steer.imprecise": {"steered": {"mfv.Liberty": -0.8}},
    "steer.wrong_way": {"steered": {"mfv.Care": -0.1}},
    "steer.reversed": {"steered": {"trait": -0.3}},
    "steer.unseen": {"without": ("own_excess",)},
    "filter.works": {},
    "filter.one_dose": {"rounds": [{"survival": {0.3: 0.9}}] * 2},
    "filter.inert": {"rounds": [{"survival": {0.1: 0.95, 1.0: 0.9}}] * 2},
    "filter.blind": {"rounds": [{"survival": {0.1: 0.3, 1.0: 0.25}}] * 2},
    "filter.starved": {
        "healed": [],
        "rounds": [{"starved": True, "used": 3, "survival": {0.1: 0.1, 1.0: 0.0}}],
    },
    "filter.base_like": {"rounds": [{}, {"trait_gain": Score(0.01, -0.02, 0.04, 60)}]},
    "filter.soup": {"rounds": [{}, {"soup_share": 0.3}]},
    "heal.healed": {},
    "heal.half": {"healed": [{"pos": 0.25}]},
    "heal.outdone": {"healed": [{"trait": 0.2, "neutral_kl": 0.15}], "steered": {"neutral_kl": 0.4}},
    "heal.no_better": {"healed": [{"trait": 0.3, "neutral_kl": 0.1}]},
    "heal.fades": {"healed": [{"trait": 0.4}, {"trait": 0.4}], "steered": {"trait": 0.9}},
    "heal.collapsed": {"healed": [CIRCLES]},
    "heal.cooled": {"healed": [COOL]},
    "heal.undid": {"healed": [LOST]},
    "heal.untold": {"steered": {"trait": 0.0}, "healed": [LOST]},
    "heal.nothing": {"healed": [LOST], "healing": STUCK},
    "heal.spoiled": {"healed": [LOST | {"neutral_kl": 0.5}]},
    "heal.reversed": {"healed": [{"trait": -0.2}]},
    "heal.overfitted": {
        "healing": {"validation": [{"epoch": i, "nll": v} for i, v in enumerate((1.1, 1.0, 1.2))]}
    },
    "heal.drifted": {"healed": [{"neutral_kl": 0.4, "trait": 0.65}]},
    "heal.imprecise": {"healed": [{"mfv.Liberty": -0.5}]},
    "heal.broken": {"healed": [{"own_nll": 0.8, "trait": 0.5}]},
    "regularization.holds": {},
    "regularization.idle": {
        "healing": STUCK | {"gradient_ratios": [{"step": 4, "barrier": 0.0, "anchor": 0.3}]}
    },
    "regularization.throttles": {
        "healing": {"gradient_ratios": [{"step": 4, "barrier": 3.0}, {"step": 8, "barrier": 2.0}]}
    },
    "regularization.anchor": {"healing": {"gradient_ratios": [{"step": 4, "anchor": 4.0}]}},
    "regularization.spent": {"rounds": [{}, {"healing": HEALING | {"scale": 0.0}}]},
    "regularization.none": {"healing": {"gradient_ratios": [{"step": 4}], "scale": 1.0}},
    "loop.rises": {},
    "loop.saturates": {"healed": [{}, {}, {"trait": 0.44}]},
    "loop.flat": {"healed": [{}, {"trait": 0.25}]},
    "loop.falls": {"healed": [{}, {}, {"trait": 0.3}]},
    "loop.broken": {"healed": [{}, {"own_nll": 0.9, "trait": 0.9}]},
    "loop.collapsed": {"healed": [{}, CIRCLES]},
    "loop.cooled": {"healed": [{}, COOL]},
    "loop.wanders": {"rounds": [{}, {"cosine_with_first": 0.3}]},
    "loop.single": {"healed": [{}]},
    "prompt.beaten": {},
    "prompt.half": {"healed": [{}, {"pos": 0.0}]},
    "prompt.collapsed": {"healed": [{}, CIRCLES]},
    "prompt.cooled": {"healed": [{}, COOL]},
    "prompt.dearer": {"prompt": {"neutral_kl": 0.01}},
    "prompt.even": {"prompt": {"trait": 0.45}},
    "prompt.wins": {"prompt": {"trait": 0.9}},
    "prompt.broken": {"healed": [{}, {"own_nll": 0.9, "trait": 0.9}]},
}


def judged(e: gates.Evidence) -> dict[str, Any]:
    return {g.gate: g for g in gates.judge(e)}


def test_every_row_has_a_run_and_every_run_a_row():
    assert set(CASES) == TABLE


@pytest.mark.parametrize("row", sorted(CASES))
def test_a_run_built_for_a_row_selects_it(row, persona):
    name, outcome = row.split(".")
    found, wanted = judged(evidence(persona, **CASES[row]))[name], gates.gates[name].rows[outcome]
    assert (found.outcome, found.verdict, found.means) == (outcome, wanted.verdict, wanted.means)
    assert found.claim == gates.gates[name].claim
    assert any(c.isdigit() for c in found.observed) or outcome == "single"
    assert "nan" not in found.observed


def test_a_good_run_passes_every_gate_in_the_order_of_a_round(persona):
    found = gates.judge(evidence(persona))
    assert [g.gate for g in found] == ["steer", "filter", "heal", "regularization", "loop", "prompt"]
    assert {g.verdict for g in found} == {"pass"}


# What a ratio alone would call good, at a coherence that makes it worthless.
@pytest.mark.parametrize("change", [{"own_nll": 0.9}, {"repetition": 0.5, "own_nll": -0.3}])
def test_no_trait_redeems_incoherence(persona, change):
    found = judged(evidence(persona, healed=[{}, change | {"trait": 3.0, "neutral_kl": 0.0}]))
    row = "collapsed" if "repetition" in change else "broken"
    assert [found[n].outcome for n in ("heal", "loop", "prompt")] == [row] * 3
    assert all(found[n].verdict == "fail" for n in ("heal", "loop", "prompt"))
    assert found["heal"].observed.startswith("own_excess")


@pytest.mark.parametrize("change", [{}, {"trait": 0.6}])
def test_a_base_that_repeats_itself_condemns_nobody(persona, change):
    """Every stage goes in circles in two texts of five, as its base does."""
    e = evidence(persona, healed=[{}, change])
    again = [
        replace(s, items=s.items | {"repetition": [v + 0.4 for v in s.items["repetition"]]}) for s in e.stages
    ]
    same = {g.gate: g.outcome for g in gates.judge(replace(e, stages=again))}
    assert same == {g.gate: g.outcome for g in gates.judge(e)} and same["heal"] == "healed"


def test_the_filter_is_read_against_the_bases_own_soup(persona):
    """Where the base's own samples are soup as often, the kept text's soup is the base's."""
    share = {"soup_share": 0.4}
    for gap, outcome in ((Score(0.02, -0.15, 0.2, 100), "works"), (Score(0.3, 0.1, 0.5, 100), "soup")):
        rounds = [{}, share | {"soup_gap": gap}]
        assert judged(evidence(persona, rounds=rounds))["filter"].outcome == outcome


@pytest.mark.parametrize(
    ("pos", "said"), [(0.0, "pos answers are no likelier"), (0.45, "neg answers are no less likely")]
)
def test_half_a_trait_says_which_half_is_missing(persona, pos, said):
    gate = judged(evidence(persona, healed=[{}, {"pos": pos}]))["heal"]
    assert gate.outcome == "half" and gate.observed.startswith(said)


def test_old_runs_without_halves_are_judged_by_their_sum(persona):
    e = evidence(persona, healed=[{}, {"pos": 0.0}])
    bare = [
        replace(s, items={k: v for k, v in s.items.items() if not k.startswith("nll_")}) for s in e.stages
    ]
    assert judged(replace(e, stages=bare))["heal"].outcome == "healed"


def test_steering_less_is_not_healing(persona):
    """Half the trait at a quarter of the drift is what half the dose gives; twice that trait at the same drift isn't."""
    half = {"trait": 0.3, "neutral_kl": 0.1}
    assert judged(evidence(persona, healed=[half]))["heal"].outcome == "no_better"
    assert judged(evidence(persona, healed=[half | {"trait": 0.6}]))["heal"].outcome == "healed"


def test_the_coherence_floor_is_the_runs_own(persona):
    e = evidence(persona, healed=[{}, {"own_nll": 0.9}])
    assert judged(replace(e, floor=2.0))["heal"].outcome == "healed"


@pytest.mark.parametrize(
    ("traits", "patience", "stops"),
    [
        ((0.2, 0.4, 0.6), 2, False),
        ((0.4, 0.4), 2, False),
        ((0.4, 0.4, 0.4), 2, True),
        ((0.2, 0.4, 0.4), 2, False),
        ((0.2, 0.4, 0.4), 1, True),
        ((0.6, 0.4, 0.2), 2, True),
        ((0.4, 0.4, 0.4), 0, False),
        ((0.2, 0.6, 0.6, 0.6), 2, True),
    ],
)
def test_the_loop_stops_where_nothing_was_gained(persona, traits, patience, stops):
    e = evidence(persona, healed=[{"trait": t} for t in traits])
    said = stop_reason(e, patience)
    assert bool(said) == stops
    assert not stops or said.startswith(f"no gain that can be told from zero in {patience} rounds")


def test_the_loop_stops_at_the_coherence_floor(persona):
    e = evidence(persona, healed=[{}, {"own_nll": 0.9}])
    assert stop_reason(e, 2).endswith("is past the coherence floor 0.5") and stop_reason(e, 0)
    assert (
        stop_reason(replace(e, floor=2.0), 2) is None and stop_reason(evidence(persona, healed=[]), 2) is None
    )
    assert stop_reason(evidence(persona, without=("own_excess",)), 2) is None


def test_more_trait_than_every_other_axis_either_way(persona):
    """An axis outside the intent counts by how far it moves, up or down."""
    for sign in (1, -1):
        off = {"mfv.Fairness": sign * 0.5}
        gate = judged(evidence(persona, steered=off))["steer"]
        assert gate.outcome == "imprecise" and gate.observed.startswith(
            "Care moved further than Fairness by -0.1"
        )
    assert (
        judged(evidence(persona, steered={"mfv.Fairness": 0.5}, intent={"Care": 1, "Fairness": 1}))[
            "steer"
        ].outcome
        == "moves"
    )


def test_a_declared_fall_is_a_fall(persona):
    intent = {"Liberty": -1}
    down = {"mfv.Care": 0.0, "mfv.Liberty": -0.4}
    assert judged(evidence(persona, intent=intent, steered=down))["steer"].outcome == "moves"
    assert (
        judged(evidence(persona, intent=intent, steered={"mfv.Liberty": 0.4}))["steer"].outcome == "wrong_way"
    )


def test_looks_share_one_error(persona):
    """A step that alone would be told from zero is not, as one of many."""
    e = evidence(persona)
    a, b = e.stages[5], e.stages[3]
    alone, many = e.versus(a, b), e.versus(a, b, comparisons=10)
    assert many.lo < alone.lo < alone.mean < alone.hi < many.hi


def test_gates_wait_for_what_they_need(persona):
    e = evidence(persona)
    assert gates.judge(replace(e, stages=e.stages[:2], rounds=[])) == []
    assert list(judged(replace(e, stages=e.stages[:3], rounds=[]))) == ["steer"]
    assert "heal" not in judged(evidence(persona, without=("neutral_kl",)))
    assert "loop" not in judged(evidence(persona, without=("own_excess",)))
    undefined = replace(e.stages[1], scores=e.stages[1].scores | {"own_excess": Score.undefined()})
    assert "prompt" not in judged(replace(e, stages=[e.stages[0], undefined, *e.stages[2:]]))


def test_rounds_without_a_heal_or_a_word_on_the_kept_text_are_judged(persona):
    e = evidence(persona)
    unsaid = {"trait_gain": Score.undefined(), "soup_share": math.nan}
    bare = [replace(r, walk=replace(r.walk, **unsaid), healing=None) for r in e.rounds]
    found = judged(replace(e, rounds=bare))
    assert found["filter"].outcome == "works" and found["heal"].outcome == "healed"
    assert "regularization" not in found


def test_a_retained_share_needs_a_steered_trait(persona):
    gate = judged(evidence(persona, steered={"trait": 0.0}))["heal"]
    assert gate.outcome == "healed" and "steering itself moved none" in gate.observed


def test_effects_are_shown_in_nats_with_n():
    assert show(Score(0.5, 0.4, 0.6, 48), "nats/token") == "+0.500 [+0.400, +0.600] nats/token (n 48)"
    assert show(Score(0.5, math.nan, math.nan, 1)) == "+0.500 (n 1)"
    assert show(Score.undefined()) == "undefined (n 0)"


def test_the_page_is_the_table():
    path = Path(__file__).parents[2] / "docs" / "verdicts.md"
    assert path.read_text(encoding="utf-8") == page.markdown(), (
        "docs/verdicts.md is out of date: python -m steer_heal_love.gates.page > docs/verdicts.md"
    )
    for row in (r for g in gates.gates.values() for r in g.rows.values()):
        assert row.pattern and row.says.endswith(".") and "|" not in row.pattern + row.means
        assert row.verdict == "pass" or row.tries, "a row that doesn't pass says what to try"


def test_text_that_is_broken_is_not_called_merely_surer(persona):
    """A model that is sure of garbage: odd, of little entropy, and with the pos answers less likely."""
    found = judged(evidence(persona, healed=[COOL | {"own_nll": 1.4}]))
    assert found["heal"].outcome == "broken"
    fell = evidence(persona, healed=[COOL | {"trait": -0.3, "pos": -0.5}])
    assert judged(fell)["heal"].outcome == "reversed", (
        "without more trait there is nothing that coolness explains"
    )


def test_a_half_that_surely_fell_is_not_called_one_that_is_not_told(persona):
    found = judged(evidence(persona, steered={"trait": 0.6, "pos": -0.2}))["steer"]
    assert found.outcome == "half" and "pos answers are less likely" in found.observed
    assert "can't be told" not in found.means


@pytest.mark.parametrize(("teacher", "outcome"), [("nearer", "undid"), ("no nearer", "nothing")])
def test_what_a_heal_learned_is_told_by_what_it_imitates(persona, teacher, outcome):
    """Towards a teacher the text's own NLL may rise, and towards none it may fall."""
    sign = 1 if teacher == "nearer" else -1
    steps = [
        {"step": i, "nll": 1.3 + sign * 0.02 * i, "soft": 1.2 - 0.05 * i * (sign > 0)} for i in range(16)
    ]
    found = judged(evidence(persona, healed=[LOST], healing={"steps": steps}))["heal"]
    assert found.outcome == outcome
    fell = 0.6 if sign > 0 else 0.0
    assert f"in training the divergence from its teacher fell by {fell:.3f}" in found.observed


@pytest.mark.parametrize(("teacher", "overfitted"), [((0.5, 0.4), False), ((0.4, 0.5), True), ((), False)])
def test_what_a_heal_overfits_is_told_by_what_it_imitates(persona, teacher, overfitted):
    """Towards a teacher the NLL of held-out text may rise, for it is the teacher's text no more than the student's."""
    taught = [s | {"soft": 1.0 - 0.02 * i} for i, s in enumerate(HEALING["steps"])]
    seen = [{"epoch": i, "nll": 1.0 + 0.1 * i} | ({"soft": teacher[i]} if teacher else {}) for i in (0, 1)]
    found = judged(evidence(persona, healing={"steps": taught, "validation": seen}))["heal"]
    assert (found.outcome == "overfitted") == overfitted
    assert not overfitted or "held out, the divergence from its teacher ends 0.100 above" in found.observed
    assert teacher or "held out" not in found.observed, "runs of before had no such curve"
