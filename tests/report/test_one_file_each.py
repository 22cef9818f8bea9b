"""A plug-in is one file: what it declares is measured, judged, trained with and shown, and no list names it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from steer_heal_love import evals, filter, gates, report
from steer_heal_love.compare.method import Method, methods
from steer_heal_love.config import EvalConfig, HealConfig
from steer_heal_love.ground import declared, records
from steer_heal_love.ground import folder as files
from steer_heal_love.ground.declared import Declared, Panel
from steer_heal_love.ground.divergence import reverse_kl
from steer_heal_love.ground.registry import Registry
from steer_heal_love.ground.scoring import hidden_states
from steer_heal_love.heal.examples import Example
from steer_heal_love.heal.optimise import Trainer
from steer_heal_love.heal.terms import Term, term, terms
from steer_heal_love.heal.train import heal
from steer_heal_love.nouns import Completion, Persona, Stage, Tokens

REGISTRIES: tuple[Registry[Any], ...] = (
    evals.instruments,
    declared.declared,
    declared.curves,
    gates.gates,
    filter.checks,
    terms,
    methods,
)


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """What a test registers is gone after it."""
    before = [(r, dict(r.items())) for r in REGISTRIES]
    yield
    for registry, items in before:
        registry._items.clear()
        registry._items.update(items)


def politeness() -> None:
    """What a file of one's own in `evals/` holds."""

    @evals.instrument(
        "politeness",
        scores=(
            Declared(
                "politeness_shift",
                100,
                items="politeness",
                shift="fall",
                column=True,
                means="How much less often it says please.",
                panel=Panel("Please", "share"),
            ),
        ),
    )
    def measure(s: evals.Subject) -> dict[str, list[float]]:
        return {"politeness": [float(len(p.question)) for p in s.probes]}


def test_an_instrument_declares_its_shift_its_column_its_meaning_and_its_figure(
    tiny, persona: Persona, fabricate: Callable[..., Any]
) -> None:
    politeness()
    config = EvalConfig(instruments=("politeness",), resamples=50)
    subject = evals.Subject(tiny.model, tiny.tok, persona, config, [])
    base = evals.evaluate(subject, "base")
    asked = [replace(p, question=p.question + " Now?") for p in persona.probes]
    found = evals.evaluate(
        replace(subject, persona=replace(persona, probes=tuple(asked))), "healed", base=base
    )
    assert found.scores["politeness_shift"].mean == -len(" Now?")

    run = fabricate(rounds=1)
    file = run / "rounds" / "00" / "scores.json"
    stages = [replace(s, scores=s.scores | found.scores) for s in files.load_stages(file)]
    files.save_stages(stages, file)
    report.write([run], run / "report.html")
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "How much less often it says please." in page and "Please by round" in page


def test_a_gate_of_ones_own_is_judged(persona: Persona) -> None:
    rows = {"seen": gates.Row("pass", "anything", "There is a stage.")}

    @gates.gate("presence", step=99, claim="There is something.", rows=rows)
    def presence(e: gates.Evidence) -> gates.Found:
        return "seen", "1 base"

    found = gates.judge(gates.Evidence(persona, [Stage(-1, "base", {}, {})]))
    assert [(g.gate, g.verdict) for g in found if g.gate == "presence"] == [("presence", "pass")]


def test_a_check_of_ones_own_drops_and_is_named_as_the_reason() -> None:
    @filter.check("odd_count", falls="above", limit=0.5)
    def odd_count(s: Any) -> float:
        return 1.0

    made = Completion("p", Tokens((1,), (2,)), "text", 0.1, True, {"odd_count": 1.0})
    (judged,) = filter.judge([made], {"odd_count": 0.5})
    assert judged.reasons == ["odd_count"]


def test_a_loss_term_of_ones_own_is_trained_with_and_drawn(tiny, sequences, fabricate) -> None:
    """Its weight moves what is learned, its value is in every step's record, its curve is in the report."""
    states = hidden_states(tiny.model, sequences)
    kept = [Example(t, h, f"p{i}") for i, (t, h) in enumerate(zip(sequences, states, strict=True))]
    config = HealConfig(rank=2, epochs=1, validation=0.0, anchor=0.0, soft=0.0, batch=2, lr=1e-2)
    plain, _ = heal(tiny.model, kept, [], config)
    made = Term(
        "closeness",
        5,
        lambda _config: 3.0,
        reference=lambda e: e.reference,
        divergence=lambda _config: reverse_kl,
        curve="closeness to the base",
    )
    term(made)
    adapter, record = heal(tiny.model, kept, [], config)
    assert all(row["closeness"] >= 0 for row in record.steps)
    assert Trainer(tiny.model, plain, config, 1).weights["closeness"] == 3.0
    assert any(not torch.equal(adapter.factors[n][1], plain.factors[n][1]) for n in plain.factors)

    run = fabricate(rounds=1)
    file = run / "rounds" / "00" / "healing.json"
    row = records.read_json(file)
    records.write_json(file, row | {"steps": [s | {"closeness": 0.1} for s in row["steps"]]})
    report.write([run], run / "report.html")
    assert "closeness to the base" in (run / "report.html").read_text(encoding="utf-8")


def test_a_method_of_ones_own_is_compared() -> None:
    methods.register("nothing", Method("nothing", "none", "healed", lambda _bench: iter(())))
    assert "nothing" in tuple(methods)
