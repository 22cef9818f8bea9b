"""What a JSON value must be made of, said by a value of the same make.

    str, bool, int, float, dict, list   a value of that kind; a float may be a whole number, and true is no number
    NUMBER                              a float, or null where it is undefined
    (a, b, None)                        one of these
    frozenset({"x", "y"})               one of these values
    [like]                              a list of such
    {str: like}                         an object of such, under any names
    {"a": like, "b?": like, "*": like}  an object with a, perhaps with b; what else it has is such, or anything

Numbers are finite and below `MOST`, past which what draws or adds them would overflow.
"""

from __future__ import annotations

import math
from typing import Any

MOST = 1e15
NUMBER = (float, None)
TOLD = 4
"""mistakes that are named"""


def shaped(value: Any, like: Any) -> Any:
    """The value itself. Raises `ValueError` that names what in it is of another make."""
    if wrong := unlike(value, like, ""):
        more = f" and {len(wrong) - TOLD} more" if len(wrong) > TOLD else ""
        raise ValueError("; ".join(wrong[:TOLD]) + more)
    return value


def unlike(value: Any, like: Any, at: str) -> list[str]:
    """A line for every part of the value that is of another make; `at` is where it lies."""
    if isinstance(like, tuple):
        found = [unlike(value, one, at) for one in like]
        return [] if [] in found else max(found, key=len)
    if like is None:
        return [] if value is None else [mismatch(at, "null", value)]
    if isinstance(like, frozenset):
        known = isinstance(value, str) and value in like
        return [] if known else [mismatch(at, " or ".join(sorted(like)), value)]
    if isinstance(like, list):
        return listed(value, like[0], at)
    if isinstance(like, dict):
        return tabled(value, like, at)
    return [] if plain(value, like) else [mismatch(at, NAMES[like], value)]


def listed(value: Any, like: Any, at: str) -> list[str]:
    if not isinstance(value, list):
        return [mismatch(at, "a list", value)]
    if numbers(value, like):  # long lists of numbers are most of what a run writes
        return []
    if isinstance(like, type):
        return [mismatch(f"{at}[{i}]", NAMES[like], v) for i, v in enumerate(value) if not plain(v, like)]
    return [line for i, v in enumerate(value) for line in unlike(v, like, f"{at}[{i}]")]


def numbers(value: list[Any], like: Any) -> bool:
    """Whether all of a list are numbers as `like` wants them, seen without a call for each. Where it says no, each may still be."""
    if like not in (int, float, NUMBER):
        return False
    kinds = {int} if like is int else {int, float}
    if not {*map(type, value)} <= kinds:
        return False
    # Bounds first: `isfinite` fails on whole numbers beyond all floats. With NaN among them bounds say nothing, or no.
    return -MOST < min(value, default=0) <= max(value, default=0) < MOST and all(map(math.isfinite, value))


def tabled(value: Any, like: dict[Any, Any], at: str) -> list[str]:
    if not isinstance(value, dict):
        return [mismatch(at, "an object", value)]
    if str in like:
        return [line for k, v in value.items() for line in unlike(v, like[str], f"{at}.{k}")]
    out, named = [], {k.rstrip("?"): (v, k.endswith("?")) for k, v in like.items() if k != "*"}
    for key, (inner, optional) in named.items():
        if key in value:
            out += unlike(value[key], inner, f"{at}.{key}")
        elif not optional:
            out.append(f"{at}.{key}".lstrip(".") + ": missing")
    if "*" in like:
        rest = {k: v for k, v in value.items() if k not in named}
        out += [line for k, v in rest.items() for line in unlike(v, like["*"], f"{at}.{k}")]
    return out


NAMES = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    dict: "an object",
    list: "a list",
}


def plain(value: Any, kind: type) -> bool:
    """Whether this is a value of the kind."""
    if kind in (int, float):
        numeric = isinstance(value, int | kind) and not isinstance(value, bool)
        return numeric and math.isfinite(float(value) if abs(value) < MOST else math.inf)
    return isinstance(value, kind)


def mismatch(at: str, wanted: str, value: Any) -> str:
    return f"{at.lstrip('.') or 'it'}: expected {wanted}, found {value!r:.60}"
