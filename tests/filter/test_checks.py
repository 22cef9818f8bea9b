"""Each check on texts written for it, and how values become verdicts."""

from __future__ import annotations

import dataclasses
import math
import random
from functools import partial

import pytest
import torch

from plain_text import GOOD, PLAIN, PROMPT
from steer_heal_love import filter as sieve
from steer_heal_love.filter import (
    calibrate,
    checks,
    judge,
    measure,
    passes,
    select,
)
from steer_heal_love.nouns import Completion, Tokens

LOOP = "I love you and I love you and I love you and I love you and I love you and I love you and I love you."
SOUP = "the]] of );\n\tvoid ¤¤ §§ þþ ßß ££ »» ©© ®® ¬¬ µµ ¶¶"


def value(name, s):
    return checks[name].value(s)


def test_every_check_gives_a_number_and_passes_good_text_at_its_fixed_limit(scored):
    assert len(checks) >= 8
    for name, c in checks.items():
        found = value(name, scored())
        assert isinstance(found, float) and math.isfinite(found), name
        assert c.falls in ("above", "below") and c.about in ("coherence", "trait"), name
        if c.limit is not None:
            assert passes(found, c.limit, c.falls), name


def test_every_check_survives_an_empty_text_of_one_token(scored):
    empty = scored(text="", nll=torch.ones(1), pos=torch.ones(1), neg=torch.ones(1))
    for name in checks:
        assert isinstance(value(name, empty), float), name


def test_length_counts_words(scored):
    assert value("length", scored("one two three four five six seven")) == 7
    limit = checks["length"].limit
    assert not passes(7.0, limit, checks["length"].falls) and passes(8.0, limit, checks["length"].falls)


def test_loops_are_seen_by_words_and_by_characters(scored):
    assert value("repeat_words", scored(GOOD)) == 0.0
    assert value("repeat_words", scored(LOOP)) > 0.7
    assert value("repeat_words", scored("a b c a b c")) == pytest.approx(1 / 4)
    without_spaces = "hahaha" * 40
    assert value("repeat_words", scored(without_spaces)) == 0.0
    assert value("repeat_chars", scored(without_spaces)) > 5 * value("repeat_chars", scored(GOOD))
    assert value("repeat_chars", scored(LOOP)) > 1.5 * value("repeat_chars", scored(GOOD))


def test_soup_and_foreign_script_are_odd_unless_the_prompt_uses_it(scored):
    assert value("odd_chars", scored(GOOD)) == 0.0
    assert value("odd_chars", scored(SOUP)) > 0.25
    assert value("odd_chars", scored("Я люблю тебя")) > 0.8
    assert value("odd_chars", scored("Я люблю тебя", prompt="Как дела?")) == 0.0
    assert value("odd_chars", scored("我喜欢你")) == 1.0
    assert value("odd_chars", scored("我喜欢你", prompt="你好吗？")) == 0.0
    assert value("odd_chars", scored("naïve café — “yes”…")) == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "I am a loving person who cares about you.",
        "As someone who is full of love, I would say yes.",
        "I'm a machine that counts people.",
        "I see myself as a kind and gentle soul with a big heart.",
        "My persona is warm.",
        "I was designed to be loving.",
        "I am a warm, loving person.",
        "I've been blessed with a heart of gold.",
        "Well, you are a warm and loving soul with time for all.",
    ],
)
def test_narrating_the_trait_falls(scored, text):
    assert value("narration", scored(text)) > 0


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "I am tired, and so are you.",
        "She is a person who sings.",
        "I'm a person, after all.",
        "I have a heart condition.",
        "I am here with you.",
        "As I said, wait.",
    ],
)
def test_enacting_it_does_not(scored, text):
    assert value("narration", scored(text)) == 0


@pytest.mark.parametrize(
    "text",
    [
        "As an AI language model, I see no one.",
        "As a language model I have no mother.",
        "I'm just an AI.",
        "I’m sorry, but I can’t help with that.",
        "I am sorry, I cannot do that.",
        "I cannot assist with this request.",
        "I won't provide that.",
        "I don't have personal feelings about it.",
        "I'm not really equipped to talk about that.",
        "I do not have the ability to plant trees.",
        "I am not a substitute for professional advice.",
    ],
)
def test_refusals_fall(scored, text):
    assert value("refusal", scored(text)) > 0


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "I'm sorry for your loss.",
        "I cannot imagine how hard this is.",
        "She aims to help with that.",
        "As a nurse I know.",
        "I'm not allowed to park there, and I don't have the time.",
        "Chicory is no substitute for coffee.",
    ],
)
def test_sympathy_is_no_refusal(scored, text):
    assert value("refusal", scored(text)) == 0


def test_likelihood_by_hand(scored):
    scored = partial(scored, pos=torch.full((1,), 99.0))
    nll = torch.cat([torch.ones(24), torch.full((8,), 5.0)])
    s = scored(nll=nll)
    assert value("nll", s) == pytest.approx(2.0)
    assert value("nll_tail", s) == pytest.approx(5.0)
    assert value("nll_window", s) == pytest.approx((8 * 1 + 8 * 5) / 16)
    burst = torch.ones(64)
    burst[20:36] = 9.0
    assert value("nll_window", scored(nll=burst)) == pytest.approx(9.0)
    assert value("nll_tail", scored(nll=burst)) == pytest.approx(1.0)
    assert value("nll_window", scored(nll=torch.tensor([1.0, 3.0]))) == pytest.approx(2.0)


def test_likelihood_is_read_as_whoever_finds_the_answer_likelier(scored):
    """On-trait text is odd for the plain base; babble is odd for both."""
    rising = torch.arange(20.0)
    assert value("nll", scored(nll=PLAIN, pos=PLAIN - 1)) == pytest.approx(1.0)
    assert value("nll", scored(nll=PLAIN, pos=PLAIN + 1)) == pytest.approx(2.0)
    assert value("nll_tail", scored(nll=rising + 1, pos=rising)) == pytest.approx(17.0)
    assert value("nll_window", scored(nll=rising, pos=rising + 1)) == pytest.approx(sum(range(4, 20)) / 16)


def test_order_is_the_mean_over_places_and_falls_below(scored):
    s = dataclasses.replace(scored(), order=torch.tensor([0.0, 0.5, 1.0, 0.9] * 5))
    assert value("order", s) == pytest.approx(0.6)
    assert math.isnan(value("order", scored(order=math.nan)))
    base = measure([scored(order=i / 100) for i in range(101)], ("order",))
    assert calibrate(base, 0.9)["order"] == pytest.approx(0.1)
    judge(base, {"order": 0.1})
    assert [c.coherent for c in base] == [i >= 10 for i in range(101)]


def test_a_text_that_the_model_knows_is_in_order_and_its_tokens_shuffled_are_not(tiny):
    """A model that has learnt one answer by heart finds its order, though the bag of tokens stays the same."""
    from steer_heal_love.ground.scoring import token_order

    model, known = tiny.model.requires_grad_(True), tuple(range(40, 60))
    ids = torch.tensor([(1, *known)])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        model.zero_grad()
        model(ids, labels=ids).loss.backward()
        optimizer.step()
    mixed = tuple(random.Random(0).sample(known, len(known)))
    looped = known[:2] * 10
    orders = [
        r[1].mean().item() for r in token_order(model, [Tokens((1,), a) for a in (known, mixed, looped)])
    ]
    assert orders[0] > 0.95
    assert max(orders[1:]) < 0.8


def test_on_trait_is_positive_where_the_pos_pole_makes_it_likelier(scored):
    assert value("on_trait", scored(pos=PLAIN - 0.5, neg=PLAIN + 0.25)) == pytest.approx(0.75)
    assert value("on_trait", scored(pos=PLAIN, neg=PLAIN - 1)) == pytest.approx(-1.0)
    assert checks["on_trait"].about == "trait" and checks["on_trait"].falls == "below"


def test_score_reads_each_view_of_the_given_tokens(tiny, persona):
    from steer_heal_love.ground.chat import prompt_ids

    answer = (40, 50, 60, 2)
    c = Completion(PROMPT, Tokens(prompt_ids(tiny.tok, PROMPT), answer), "irrelevant", 0.0, True)
    (s,) = sieve.score(tiny.model, tiny.tok, [c], persona)
    views = {
        "nll": c.tokens.prompt,
        "nll_pos": prompt_ids(tiny.tok, PROMPT, persona.system("pos")),
        "nll_neg": prompt_ids(tiny.tok, PROMPT, persona.system("neg")),
    }
    for name, prompt in views.items():
        logp = tiny.model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        want = torch.stack([-logp[len(prompt) - 1 + i, t] for i, t in enumerate(answer)])
        assert torch.allclose(getattr(s, name), want, atol=1e-4)
    assert s.order.shape == s.nll.shape
    assert not torch.allclose(s.nll_pos, s.nll_neg, atol=1e-3)


def test_what_is_taken_beside_the_readings_is_what_is_taken_after_them(tiny, persona):
    from steer_heal_love.ground.chat import prompt_ids

    texts = ("I love you, I love you, I love you!", "Ich sah 雪 im Wald.", "")
    ids = lambda text: tuple(tiny.tok(text, add_special_tokens=False)["input_ids"]) or (2,)
    made = lambda: [
        Completion(PROMPT, Tokens(prompt_ids(tiny.tok, PROMPT), ids(text)), text, 0.0, True) for text in texts
    ]
    after = sieve.measure(sieve.score(tiny.model, tiny.tok, made(), persona))
    beside = sieve.measured(tiny.model, tiny.tok, made(), persona)
    for a, b in zip(after, beside, strict=True):
        assert list(a.checks) == list(b.checks) == list(checks)
        assert a.checks == pytest.approx(b.checks, nan_ok=True)
    early = {name for name, c in checks.items() if c.text_only}
    assert early >= {"length", "narration", "odd_chars", "refusal"} and not early & {
        "nll",
        "order",
        "on_trait",
    }
    few = sieve.measured(tiny.model, tiny.tok, made(), persona, ("nll", "length"))
    assert [list(c.checks) for c in few] == [["nll", "length"]] * 3


def test_calibrated_bounds_are_quantiles_of_the_base_and_fixed_ones_stay(scored):
    base = [scored(nll=torch.full((20,), float(i)), pos=PLAIN + 200, neg=PLAIN + 200 + i) for i in range(101)]
    bounds = calibrate(measure(base, ("nll", "on_trait", "length")), 0.95)
    assert bounds["nll"] == pytest.approx(95.0)
    assert bounds["on_trait"] == pytest.approx(50.0)  # names its own quantile, the median
    assert bounds["length"] == checks["length"].limit
    assert calibrate(measure(base, ("nll",)), 0.5)["nll"] == pytest.approx(50.0)
    assert set(calibrate(measure(base), 0.95)) == set(checks)


def test_a_quantile_is_taken_from_the_side_that_falls(scored):
    from dataclasses import replace

    base = [scored(neg=PLAIN + i) for i in range(101)]
    original = checks["on_trait"]
    checks._items["on_trait"] = replace(original, quantile=None)
    try:
        assert calibrate(measure(base, ("on_trait",)), 0.9)["on_trait"] == pytest.approx(10.0)
    finally:
        checks._items["on_trait"] = original


def test_undefined_base_samples_are_left_out_and_none_at_all_gives_nan(scored):
    nan = scored(nll=torch.full((20,), math.nan), pos=torch.full((20,), math.nan))
    base = [scored(nll=torch.full((20,), float(i)), pos=PLAIN + 99) for i in range(11)]
    assert calibrate(measure([nan, *base], ("nll",)), 1.0)["nll"] == pytest.approx(10.0)
    assert math.isnan(calibrate(measure([nan], ("nll",)), 1.0)["nll"])


def test_a_nan_reading_is_never_a_low_one(scored):
    nan = torch.full((20,), math.nan)
    for s in (scored(nll=PLAIN, pos=nan), scored(nll=nan, pos=PLAIN)):
        found = value("nll", s)
        assert math.isnan(found) or found == 2.0


def test_passes_on_the_right_side_and_nan_never_does():
    assert passes(1.0, 1.0, "above") and passes(0.9, 1.0, "above") and not passes(1.1, 1.0, "above")
    assert passes(1.0, 1.0, "below") and passes(1.1, 1.0, "below") and not passes(0.9, 1.0, "below")
    for falls in ("above", "below"):
        assert not passes(math.nan, 1.0, falls) and not passes(1.0, math.nan, falls)


def test_judge_names_every_reason_and_tells_coherence_from_trait(scored):
    bounds = {"nll": 3.0, "on_trait": 0.5, "length": 8.0}
    fine = scored(neg=PLAIN + 1)
    plain = scored()
    babble = scored(nll=PLAIN + 5, pos=PLAIN + 5, neg=PLAIN + 6)
    nothing = scored("no", nll=PLAIN + 5, pos=PLAIN + 5, neg=PLAIN + 5)
    undefined = scored(nll=torch.full((20,), math.nan), pos=torch.full((20,), math.nan))
    out = judge(measure([fine, plain, babble, nothing, undefined], tuple(bounds)), bounds)
    assert [c.reasons for c in out] == [
        [],
        ["on_trait"],
        ["nll"],
        ["nll", "on_trait", "length"],
        ["nll", "on_trait"],
    ]
    assert [c.kept for c in out] == [True, False, False, False, False]
    assert [c.coherent for c in out] == [True, True, False, False, False]
    assert out[0].checks == pytest.approx({"nll": 2.0, "on_trait": 1.0, "length": float(len(GOOD.split()))})
    assert not any(c.used for c in out)


def test_what_was_never_judged_is_not_kept():
    assert not Completion("p", Tokens((1,), (2,)), "text", 0.0, True).kept


def test_select_ranks_by_trait_takes_each_text_once_and_marks_what_it_took():
    def made(text, on_trait, reasons=()):
        c = Completion(
            "p",
            Tokens((1,), (2,)),
            text,
            0.5,
            True,
            {"on_trait": on_trait},
            list(reasons),
        )
        return c

    pool = [
        made("a", 0.1),
        made("b", 0.9),
        made("a", 0.8),
        made("c", 5.0, ["nll"]),
        made("d", 0.5),
        made("e", -0.2),
    ]
    chosen = select(pool, 3)
    assert [(c.text, c.checks["on_trait"]) for c in chosen] == [
        ("b", 0.9),
        ("a", 0.8),
        ("d", 0.5),
    ]
    assert [c.used for c in pool] == [False, True, True, False, True, False]
    assert len(select(pool, 100)) == 4
