"""What a value must be made of: good values pass as they are, and each mistake is named where it lies."""

from __future__ import annotations

import math

import pytest
from hypothesis import strategies as st

from fuzz import fuzz
from steer_heal_love.ground.untrusted import NUMBER, shape, shaped
from steer_heal_love.ground.untrusted.shape import MOST

LIKE = {
    "name": str,
    "n?": int,
    "kind": frozenset({"a", "b"}),
    "items": [NUMBER],
    "by": {str: (float, None)},
    "rows": [{"step": float, "*": NUMBER}],
}
GOOD = {
    "name": "x",
    "n": 3,
    "kind": "a",
    "items": [1, None, 2.5],
    "by": {"y": 1, "z": None},
    "rows": [{"step": 0, "nll": None}],
    "more": [],
}


def test_a_value_of_that_make_is_itself():
    assert shaped(GOOD, LIKE) is GOOD
    assert shaped({k: v for k, v in GOOD.items() if k != "n"}, LIKE)
    assert shaped({}, ({"*": frozenset()}, str)) == {}


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"name": 3}, "name: expected a text"),
        ({"n": True}, "n: expected a whole number"),
        ({"n": 1.0}, "n: expected a whole"),
        ({"kind": "c"}, "kind: expected a or b"),
        ({"kind": ["a"]}, "kind"),
        ({"items": [1, "2"]}, r"items\[1\]"),
        ({"items": 3}, "items: expected a list"),
        ({"by": {"y": "x"}}, r"by\.y"),
        ({"rows": [{"nll": 1}]}, r"rows\[0\]\.step: missing"),
        ({"rows": [{"step": 1, "nll": []}]}, r"rows\[0\]\.nll"),
        ({"items": [math.nan]}, r"items\[0\]"),
        ({"items": [10**400]}, r"items\[0\]"),
        ({"items": [2 * MOST]}, r"items\[0\]"),
        ({"rows": {}}, "rows: expected a list"),
    ],
)
def test_each_part_of_another_make_is_named(part, words):
    with pytest.raises(ValueError, match=words):
        shaped(GOOD | part, LIKE)


def test_what_is_wrong_is_listed_and_the_rest_counted():
    with pytest.raises(ValueError, match="name.*missing.*and 14 more"):
        shaped(
            {"items": ["x"] * 17, "kind": "a", "by": {}, "rows": []}, {"name": str, **LIKE, "items": [int]}
        )


ODD = [True, None, "1", math.nan, math.inf, -math.inf, 10**400, -(10**400), 1e15, -1e15, 0.5, 7, -7, 1e14]


@fuzz(
    value=st.lists(st.sampled_from(ODD) | st.integers() | st.floats(), max_size=6),
    like=st.sampled_from([int, float, shape.NUMBER, str, {"a": int}]),
)
def test_a_list_of_numbers_is_seen_through_at_once_only_where_each_one_is_fine(value, like):
    each = all(not shape.unlike(v, like, "") for v in value)
    assert not (shape.numbers(value, like) and not each)
    usual = all(type(v) is int or (like is not int and type(v) is float) for v in value)
    if each and usual and like in (int, float, shape.NUMBER):
        assert shape.numbers(value, like)
    assert (not shape.unlike(value, [like], "")) == each
