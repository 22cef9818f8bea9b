"""The trait in both halves, the third answers, and which probes are asked."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import strategies as st

from fuzz import fuzz
from steer_heal_love import evals
from steer_heal_love.config import EvalConfig
from steer_heal_love.evals import probes
from steer_heal_love.ground.chat import answer_ids
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.halves import halves
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.ground.scoring import token_nll
from steer_heal_love.nouns import Probe, Tokens

CONFIG = EvalConfig(instruments=("probes",), resamples=50)
THIRD = {"neutral": "There is a cat there.", "off_topic": "I love the bread so."}


@pytest.fixture
def subject(tiny, persona) -> evals.Subject:
    """Two of the probes have both third answers, one has the neutral one alone."""
    first, second, third, *rest = persona.probes
    own = (replace(first, **THIRD), second, replace(third, neutral="It is time."), *rest)
    asked = replace(persona, probes=(replace(own[0]), own[1], own[2], replace(rest[0], **THIRD), *rest[1:]))
    return evals.Subject(tiny.model, tiny.tok, asked, CONFIG, [])


def test_each_half_is_the_likelihood_of_its_own_answers(subject) -> None:
    items = probes.probes(subject)
    for name, pole in (("nll_pos", "pos"), ("nll_neg", "neg")):
        read = [
            Tokens(subject.prompt(p.question), answer_ids(subject.tok, getattr(p, pole)))
            for p in subject.probes
        ]
        wanted = [part.mean().item() for part in token_nll(subject.model, read)]
        assert items[name] == pytest.approx(wanted, abs=1e-4)


def test_the_halves_add_up_to_the_shift_for_every_probe(subject, random_adapter) -> None:
    base = probes.probes(subject)
    adapter = random_adapter(subject.model, 4)
    with adapted(subject.model, adapter.factors, adapter.scaling):
        moved = probes.probes(subject)
    pos, neg, both = (evals.by_item(n, moved, base) for n in ("trait_pos", "trait_neg", "trait_shift"))
    assert np.abs(both).max() > 1e-3
    assert np.add(pos, neg) == pytest.approx(both, abs=1e-12)
    assert pos == pytest.approx(np.subtract(base["nll_pos"], moved["nll_pos"]), abs=1e-12)
    scores = evals.scores(moved, base, resamples=50)
    total = scores["trait_pos"].mean + scores["trait_neg"].mean
    assert total == pytest.approx(scores["trait_shift"].mean, abs=1e-9)


def test_third_answers_are_read_where_they_are_given(subject) -> None:
    items = probes.probes(subject)
    assert [math.isfinite(v) for v in items["over_neutral"]] == [True, False, True, True, False, False]
    assert [math.isfinite(v) for v in items["over_off_topic"]] == [True, False, False, True, False, False]
    assert [math.isfinite(v) for v in items["choice_pos"]] == [True, False, False, True, False, False]
    found = evals.scores(items, items, resamples=50)
    assert found["choice_pos"].n == 2 and found["trait_over_neutral"].n == 3
    assert found["trait_over_neutral"].mean == found["trait_over_off_topic"].mean == 0


def test_without_third_answers_nothing_is_said_of_them(tiny, persona) -> None:
    items = probes.probes(evals.Subject(tiny.model, tiny.tok, persona, CONFIG, []))
    assert set(items) == {"trait", "nll_pos", "nll_neg"}


NLL = st.floats(0.1, 9.0)


@fuzz(rows=st.lists(st.tuples(NLL, NLL, NLL, NLL), min_size=1, max_size=5))
def test_a_choice_is_the_least_surprise_of_four(rows) -> None:
    items = probes.items_of([dict(zip(probes.ANSWERS, row, strict=True)) for row in rows])
    for row, chosen in zip(rows, items["choice_pos"], strict=True):
        assert chosen == (sorted(row)[0] == row[0] and row.count(row[0]) == 1)
    swapped = probes.items_of([{"pos": b, "neg": a} for a, b, *_ in rows])
    assert swapped["trait"] == [-v for v in items["trait"]]


def test_confirmation_probes_are_asked_only_where_they_are_named(tiny, persona) -> None:
    kept = (Probe("Who?", "A friend.", "A unit."),)
    confirmed = replace(persona, confirmation=kept)
    assert not set(kept) & set(evals.chosen_probes(confirmed, CONFIG))
    config = replace(CONFIG, probe_half="confirmation")
    assert evals.chosen_probes(confirmed, config) == kept
    with pytest.raises(UserError, match=r"no probes.*confirmation"):
        evals.chosen_probes(persona, config)


@pytest.mark.parametrize(
    ("pos", "neg", "beats", "missing"),
    [
        (0.2, 0.2, True, ()),
        (-0.2, 0.5, False, ("pos",)),
        (0.5, -0.2, False, ("neg",)),
        (-0.2, -0.2, False, ("pos", "neg")),
        (0.0, 0.4, True, ()),
    ],
)
def test_a_lead_that_comes_from_one_half_says_which_is_missing(pos, neg, beats, missing) -> None:
    """Items of b are noise; a finds its pos answers `pos` nats likelier and its neg answers `neg` less likely."""
    draw = np.random.default_rng(1)
    b = {n: draw.normal(3, 1, 40) for n in ("nll_pos", "nll_neg")}
    noise = draw.normal(0, 0.05, 40)
    a = {"nll_pos": b["nll_pos"] - pos - noise + noise.mean(), "nll_neg": b["nll_neg"] + neg + noise[::-1]}
    items = [{n: v.tolist() for n, v in (m | {"trait": m["nll_neg"] - m["nll_pos"]}).items()} for m in (a, b)]
    found = halves(*items, resamples=500)
    assert (found.beats, found.missing) == (beats, missing)
    assert found.trait.mean == pytest.approx(found.pos.mean + found.neg.mean)
    assert all(half in found.says for half in missing)


def test_without_third_answers_the_two_poles_read_as_they_did(subject) -> None:
    whole = probes.probes(subject)
    poles = probes.probes(replace(subject, config=replace(CONFIG, third_answers=False)))
    assert {"over_neutral", "over_off_topic", "choice_pos"} <= whole.keys()
    assert poles.keys() == {"trait", "nll_pos", "nll_neg"}
    for name, values in poles.items():
        assert values == pytest.approx(whole[name], abs=1e-4)


def test_the_trait_is_told_apart_by_the_kind_of_question(subject) -> None:
    items = probes.probes(subject)
    assert not any("." in name for name in items)  # one kind alone is the whole
    first, second, *rest = subject.persona.probes
    asked = replace(subject.persona, probes=(first, replace(second, kind="plain"), *rest))
    found = probes.probes(replace(subject, persona=asked))
    assert found["trait.plain"] == [found["trait"][1]]
    assert found["trait.elicit"] == [found["trait"][0], *found["trait"][2:]]
    base = {name: [v - 0.5 for v in values] for name, values in found.items()}
    scores = evals.scores(found, base, resamples=50)
    assert scores["trait_shift.elicit"].mean == pytest.approx(0.5)
    assert "trait_shift.plain" not in evals.scores(items, items, resamples=50)
