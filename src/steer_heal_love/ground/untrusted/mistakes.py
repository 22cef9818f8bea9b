"""What is wrong with a file, said at once: a line a mistake, each naming its key, the nearest known one named."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.shown import shown

LISTED = 40
"""mistakes shown; the rest are counted"""


def refuse(name: str, mistakes: Sequence[str], then: str = "") -> None:
    """Raise one `UserError` that lists every mistake in the file called `name`, and says what to do `then`; nothing when
    there is none."""
    if not mistakes:
        return
    if len(mistakes) == 1:
        raise UserError(f"{shown(name)}: {shown(mistakes[0])}" + (f". {then}" if then else ""))
    lines = [f"  {shown(m)}" for m in mistakes[:LISTED]]
    if len(mistakes) > LISTED:
        lines.append(f"  and {len(mistakes) - LISTED} more")
    raise UserError(
        f"{shown(name)}: {len(mistakes)} mistakes:\n" + "\n".join([*lines, *([then] if then else [])])
    )


def nearest(found: str, names: Iterable[str], *, least: float = 0.6) -> str:
    """`; did you mean 'NAME'?`, or nothing where no name is near (difflib's ratio below `least`)."""
    near = difflib.get_close_matches(found[:100], list(names), n=1, cutoff=least)
    return f"; did you mean {near[0]!r}?" if near else ""


def known(keys: Iterable[object], names: Sequence[str], where: str = "") -> list[str]:
    """A mistake for every key that is none of `names`."""
    return [
        f"{where}unknown key {str(k)[:100]!r}: there is {', '.join(names)}{nearest(str(k), names)}"
        for k in keys
        if k not in names
    ]


def whole_number(value: object) -> bool:
    """Whether this is an integer; `true` is none."""
    return isinstance(value, int) and not isinstance(value, bool)
