"""What keeps a table from being a persona, one line a mistake, each beginning with its key.

Lengths are limits of size, in characters: past them a tokenizer takes minutes and a forward pass gigabytes. What is
good in a persona is `persona.lint`'s affair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from steer_heal_love.ground.text import words
from steer_heal_love.ground.untrusted import known, whole_number
from steer_heal_love.nouns import FOUNDATIONS

KEYS = ("name", "axis", "pos", "neg", "intent", "prompts", "probes", "confirmation")
KINDS = ("elicit", "plain")
"""of training prompts, and of probes' questions"""
PROBE = ("question", "pos", "neg")
THIRD = ("neutral", "off_topic")
"""answers of a probe that may be left out"""
LONGEST = {"name": 100, "axis": 500, "pos": 2_000, "neg": 2_000}
LONGEST_PROMPT = 8_000
LEAST, MOST = 4, 2_000
"""prompts of either kind, and probes"""


def mistakes(data: Mapping[str, Any]) -> list[str]:
    """Everything that is wrong with a table, in the order of a persona's file."""
    return [
        *(m for key in LONGEST for m in text(key, data, LONGEST[key])),
        *same("pos, neg", data, "the poles are the same, so nothing tells them apart"),
        *known(data, KEYS),
        *intent(data.get("intent", {})),
        *prompts(data.get("prompts", {})),
        *probes("probes", data.get("probes"), LEAST),
        *probes("confirmation", data.get("confirmation", []), 0),
    ]


def text(key: str, table: Any, longest: int, where: str = "") -> Iterator[str]:
    """Mistakes of a text that must be there."""
    if not isinstance(table, Mapping):
        yield f"{where}{key}: expected a text, found {table!r:.60}"
    elif key not in table:
        yield f"{where}{key}: missing"
    else:
        yield from a_text(f"{where}{key}", table[key], longest)


def a_text(at: str, value: Any, longest: int) -> Iterator[str]:
    """Mistakes of one text: its type, its length, and whether it says anything."""
    if not isinstance(value, str) or not value.strip():
        yield f"{at}: expected a text, found {value!r:.60}"
    elif len(value) > longest:
        yield f"{at}: {len(value)} characters, at most {longest}; it begins {value[:40]!r}"
    elif not words(value):
        yield f"{at}: expected words, found {value!r:.60}"


def same(at: str, table: Any, why: str) -> Iterator[str]:
    """A mistake where `pos` and `neg` differ in case, spaces and punctuation at most."""
    pos, neg = (table.get(key) if isinstance(table, Mapping) else None for key in ("pos", "neg"))
    if isinstance(pos, str) and isinstance(neg, str) and len(pos) + len(neg) <= 2 * LONGEST_PROMPT:
        found = words(pos)
        if found and found == words(neg):
            yield f"{at}: {why}"


def intent(table: Any) -> Iterator[str]:
    """Mistakes of the foundations that a persona is meant to move."""
    if not isinstance(table, Mapping):
        yield f"intent: expected a table, found {table!r:.60}"
        return
    for key, value in table.items():
        if key not in FOUNDATIONS:
            yield f"intent.{key}: no such foundation; there is {', '.join(FOUNDATIONS)}"
        elif not whole_number(value) or value not in (-1, 0, 1):
            yield f"intent.{key}: expected -1, 0 or 1, found {value!r:.60}"


def prompts(table: Any) -> Iterator[str]:
    """Mistakes of the training prompts."""
    if isinstance(table, Mapping):
        yield from known(table, KINDS, "prompts: ")
    for kind in KINDS:
        items = table.get(kind) if isinstance(table, Mapping) else None
        if not isinstance(items, list) or not LEAST <= len(items) <= MOST:
            yield f"prompts.{kind}: expected at least {LEAST} texts (shl lint wants 32), found {counted(items)}"
        else:
            for i, item in enumerate(items):
                yield from a_text(f"prompts.{kind}[{i}]", item, LONGEST_PROMPT)


def probes(name: str, tables: Any, least: int) -> Iterator[str]:
    """Mistakes of a list of probes; the third answers may be left out."""
    if not isinstance(tables, list) or not least <= len(tables) <= MOST:
        wanted = f"at least {least} tables [[{name}]] (shl lint wants 24)" if least else f"tables [[{name}]]"
        yield f"{name}: expected {wanted}, found {counted(tables)}"
        return
    for i, table in enumerate(tables):
        for key in (*PROBE, *(k for k in THIRD if isinstance(table, Mapping) and k in table)):
            yield from text(key, table, LONGEST_PROMPT, f"{name}[{i}].")
        if isinstance(table, Mapping):
            yield from known(table, (*PROBE, *THIRD, "kind"), f"{name}[{i}]: ")
            yield from kind(f"{name}[{i}].kind", table.get("kind", KINDS[0]))
        yield from same(f"{name}[{i}]", table, "pos and neg are the same, so it measures nothing")


def kind(at: str, value: Any) -> Iterator[str]:
    """A mistake where a probe's kind is none that there is."""
    if value not in KINDS:
        yield f"{at}: expected {' or '.join(KINDS)}, found {value!r:.60}"


def counted(items: Any) -> str:
    if isinstance(items, list):
        return f"{len(items)}; at most {MOST}" if len(items) > MOST else str(len(items))
    return "none" if items is None else f"{items!r:.60}"
