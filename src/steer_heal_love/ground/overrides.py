"""Nested changes laid over a frozen dataclass of dataclasses, with every mistake told at once."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, TypeVar

from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.untrusted import nearest, whole_number
from steer_heal_love.nouns import Json

C = TypeVar("C")
LARGEST = 2**1000
"""an integer past this is no floating-point number"""


def override(config: C, changes: Json, where: str = "") -> C:
    """`config` with nested `changes`; raises one UserError that names every unknown or mistyped key."""
    problems: list[str] = []
    result = _override(config, changes, where, problems)
    if problems:
        raise UserError("\n".join(problems))
    return result


def _override(config: Any, changes: Json, where: str, problems: list[str]) -> Any:
    known = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    values: Json = {}
    for key, new in changes.items():
        at = f"{where}{key}"
        if key not in known:
            near = nearest(str(key), known)
            problems.append(f"unknown setting {at[:100]!r}; there is: {', '.join(known)}{near or '.'}")
        elif dataclasses.is_dataclass(known[key]):
            if isinstance(new, dict):
                values[key] = _override(known[key], new, f"{at}.", problems)
            else:
                problems.append(f"{at}: expected a table, found {new!r:.80}.")
        else:
            old = known[key]
            if isinstance(old, tuple) and isinstance(new, list):
                new = tuple(new)
            if isinstance(old, float) and isinstance(new, int) and not isinstance(new, bool):
                new = float(new) if abs(new) < LARGEST else math.inf
            if type(new) is not type(old):
                problems.append(f"{at}: expected {type(old).__name__}, found {new!r:.80}.")
            elif isinstance(new, tuple) and not matches(new, old):
                wanted = (
                    "names"
                    if not old or isinstance(old[0], str)
                    else f"{len(old)} of {type(old[0]).__name__}"
                )
                problems.append(f"{at}: expected {wanted}, found {list(new)!r:.80}.")
            else:
                values[key] = new
    return dataclasses.replace(config, **values)


def matches(new: tuple[Any, ...], old: tuple[Any, ...]) -> bool:
    """Any number of names for a tuple of names, else as many numbers of the same types."""
    if not old or isinstance(old[0], str):
        return all(isinstance(x, str) for x in new)
    as_number = lambda x: float if whole_number(x) and abs(x) < LARGEST else type(x)
    return [as_number(x) for x in new] == [type(x) for x in old]
