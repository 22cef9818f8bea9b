"""What the kept text is like is told against the base's own, whatever the run's bounds."""

from __future__ import annotations

import itertools
import math

import pytest

from steer_heal_love.filter.kept import sampled
from steer_heal_love.nouns import Completion, Tokens

PLAIN = "A bird sang at the window while she packed her bag for school."


NUMBER = itertools.count()


def made(on_trait, *, text=PLAIN, dose=0.2, used=True, reasons=(), window=1.5, prompt=None):
    """An answer, to a prompt of its own where none is given."""
    checks = {"on_trait": on_trait, "nll_window": window}
    return Completion(
        prompt or f"What now, {next(NUMBER)}?",
        Tokens((1,), (2,)),
        text,
        dose,
        True,
        checks,
        list(reasons),
        not reasons,
        used,
    )


BASE = [made(v / 100, window=2.0 + v / 10, used=False) for v in range(1, 9)]


def test_steered_text_gains_and_the_bases_own_does_not():
    assert sampled([made(0.3), made(0.25), made(0.35)], BASE, 0.4)["trait_gain"].lo > 0.1
    own = sampled([made(c.checks["on_trait"]) for c in BASE], BASE, 0.4)["trait_gain"]
    assert own.mean == pytest.approx(0.0) and own.lo < 0 < own.hi


def test_only_what_was_kept_up_to_the_dose_counts():
    good = [made(0.3), made(0.31)]
    others = [made(9.0, dose=0.5, used=False), made(9.0, reasons=["nll"], used=False)]
    assert sampled(good + others, BASE, 0.4) == sampled(good, BASE, 0.4)
    base = [*BASE, made(-9.0, reasons=["on_trait"], used=False)]
    assert sampled(good, base, 0.4)["trait_gain"] == sampled(good, BASE, 0.4)["trait_gain"]


@pytest.mark.parametrize(
    "soup",
    [
        made(0.3, text="love and light " * 12),
        made(0.3, text="сердце любовь свет душа мир"),
        made(0.3, window=5.0),
    ],
)
def test_soup_is_seen_in_the_training_text(soup):
    assert sampled([made(0.3), soup], BASE, 0.4)["soup_share"] == 0.5
    soup.used = False
    assert sampled([made(0.3), soup], BASE, 0.4)["soup_share"] == 0.0


def test_undefined_where_nothing_was_kept_or_measured():
    nothing = sampled([made(0.3, used=False)], BASE, None)
    assert nothing["trait_gain"].n == 0 and math.isnan(nothing["soup_share"])
    bare = made(0.3)
    bare.checks = {"length": 9.0}
    found = sampled([bare], BASE, 0.4)
    assert math.isnan(found["trait_gain"].mean) and found["soup_share"] == 0.0


def test_a_base_that_goes_in_circles_is_its_own_measure():
    circles = lambda **k: made(0.3, text="round and round " * 8, **k)
    base, used = (
        [circles() for _ in range(10)] + BASE,
        [circles() for _ in range(5)] + [made(0.3) for _ in range(5)],
    )
    found = sampled(used, base, 0.4)
    assert found["soup_share"] == 0.5 and found["soup_gap"].lo < 0 < found["soup_gap"].hi
    assert sampled(used, BASE, 0.4)["soup_gap"].lo > 0


def test_answers_to_one_prompt_count_as_one():
    """Three prompts that lean differently, twenty answers each: no sixty draws of the trait."""
    many = [made(lean + 0.01 * i, prompt=f"Prompt {lean}") for lean in (0.0, 0.3, 0.6) for i in range(20)]
    found = sampled(many, BASE, 0.4)["trait_gain"]
    alone = sampled([made(c.checks["on_trait"]) for c in many], BASE, 0.4)["trait_gain"]
    assert found.mean == pytest.approx(alone.mean) and alone.lo > 0 > found.lo
    circles = [made(0.3, text="round and round " * 8, prompt="one") for _ in range(12)]
    rest = [made(0.3) for _ in range(12)]
    assert sampled(circles + rest, BASE, 0.4)["soup_gap"].lo < 0, "one prompt's soup is not twelve texts'"
