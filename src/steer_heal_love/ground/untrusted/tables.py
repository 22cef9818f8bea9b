"""TOML and JSON as plain tables: parsed within bounds, every value that nobody can mean found.

Out: a `Found`: the table, and mistakes by the key where they are. Values stay as they were, so that the caller can
look for its own mistakes too and tell all of them together; an integer of thousands of digits becomes a `Huge`.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.shown import shown
from steer_heal_love.ground.untrusted.plain import MEGABYTE, read_text
from steer_heal_love.nouns import Json

DEPTH = 16
"""tables and lists inside each other"""
PART = r"""(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*"""
DOTTED = re.compile(rf"^[ \t]*\[{{0,2}}[ \t]*(?:{PART}){{{DEPTH}}}", re.MULTILINE)
"""a TOML key of too many parts, which takes quadratic time to parse"""
INTEGER = 2**63
"""integers below this, and above minus this, are of sane size"""
UNWANTED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""control characters but tab and line ends, and lone surrogates"""


class Huge:
    """In place of an integer that has too many digits to be handled."""

    def __repr__(self) -> str:
        return "an integer of more than 64 bits"


@dataclass
class Found:
    """A parsed table, and what is wrong with its values by key."""

    data: Any
    mistakes: dict[str, str] = field(default_factory=dict)

    def all(self, others: list[str]) -> list[str]:
        """These mistakes and `others`, each "key: what", but for keys that have one already."""
        own = [f"{key}: {what}" if key else what for key, what in self.mistakes.items()]
        return own + [o for o in others if o.partition(": ")[0] not in self.mistakes]


def toml(path: Path, name: str, *, most: int = MEGABYTE) -> Found:
    """The table of a TOML file of at most `most` bytes. Raises `UserError` when it is none."""
    text = read_text(path, name, most=most, form=" not TOML:")
    try:
        if DOTTED.search(text):
            raise RecursionError
        data = tomllib.loads(text)
    except RecursionError as e:
        raise UserError(
            f"{shown(name)}: not TOML: nested deeper than {DEPTH} tables, lists or parts of a key."
        ) from e
    except ValueError as e:  # TOMLDecodeError, and integers of thousands of digits
        raise UserError(f"{shown(name)}: not TOML: {shown(e)}") from e
    return examined(data, {})


def json_object(path: Path, name: str, *, most: int = MEGABYTE) -> Found:
    """The object in a JSON file of at most `most` bytes. Raises `UserError` when it is none."""
    found = json_text(read_text(path, name, most=most, form=" not JSON:"), name)
    if not isinstance(found.data, dict):
        raise UserError(f"{shown(name)}: expected a JSON object, found {type(found.data).__name__}.")
    return found


def json_text(text: str, name: str) -> Found:
    """The value of a JSON text. Raises `UserError` when it is none."""
    mistakes: dict[str, str] = {}

    def pairs(items: list[tuple[str, Any]]) -> Json:
        out = dict(items)
        if len(out) < len(items):
            times = Counter(k for k, _ in items)
            mistakes.update({k: "the key is there twice" for k, n in times.items() if n > 1})
        return out

    def constant(word: str) -> float:
        raise ValueError(f"{word} is no number of JSON")

    try:
        data = json.loads(
            text,
            object_pairs_hook=pairs,
            parse_constant=constant,
            parse_int=lambda digits: int(digits) if len(digits) <= 20 else Huge(),
        )
    except RecursionError as e:
        raise UserError(f"{shown(name)}: not JSON: nested deeper than {DEPTH} objects or lists.") from e
    except ValueError as e:
        raise UserError(f"{shown(name)}: not JSON: {shown(e)}") from e
    return examined(data, mistakes)


def json_lines(path: Path, name: str, *, most: int = 16 * MEGABYTE) -> Iterator[tuple[int, Found]]:
    """Line number, from 1, and value of every line that isn't blank.

    A line that is no JSON is a `Found` of None whose mistake says so. Raises `UserError` when there is no such text.
    """
    # Not splitlines(): a text may hold U+2028, which is no line end in JSON lines.
    for number, line in enumerate(read_text(path, name, most=most).split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield number, json_text(line, "")
        except UserError as e:
            yield number, Found(None, {"": str(e).removeprefix(": ")})


def examined(data: Any, mistakes: dict[str, str]) -> Found:
    """Every value of a parsed table looked at, without recursion: what nobody can mean, by its key."""
    box = {"": data}
    todo: list[tuple[str, Any, Any, int]] = [("", box, "", 0)]
    for where, holder, key, depth in todo:  # grows while it is read: level by level
        value = holder[key]
        if what := wrong(value, depth):
            mistakes.setdefault(where[:200], what)
        if isinstance(value, int) and abs(value) >= INTEGER:
            holder[key] = Huge()
        if isinstance(value, dict) and depth < DEPTH:
            for k in value:
                at = f"{where}.{k}" if where else str(k)
                if what := character(k):
                    mistakes.setdefault(at[:200], f"the key holds {what}")
                todo.append((at, value, k, depth + 1))
        elif isinstance(value, list) and depth < DEPTH:
            todo += [(f"{where}[{i}]", value, i, depth + 1) for i in range(len(value))]
    return Found(box[""], mistakes)


def wrong(value: Any, depth: int) -> str:
    """What keeps a value from being one that somebody means; nothing for most."""
    if isinstance(value, dict | list):
        return f"nested deeper than {DEPTH} tables or lists" if depth >= DEPTH else ""
    if isinstance(value, Huge) or (isinstance(value, int) and abs(value) >= INTEGER):
        return "an integer of more than 64 bits"
    if isinstance(value, float) and not math.isfinite(value):
        return f"expected a finite number, found {value}"
    return f"the text holds {found}" if isinstance(value, str) and (found := character(value)) else ""


def character(text: str) -> str:
    """The first control character or lone surrogate of a text, in words; nothing where there is none."""
    if not (found := UNWANTED.search(text)):
        return ""
    code = ord(found[0])
    kind = "half of a surrogate pair," if 0xD800 <= code < 0xE000 else "the control character"
    return f"{kind} U+{code:04X}"
