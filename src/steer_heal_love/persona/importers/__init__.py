"""Files of other projects, read as what a persona's file can hold of them.

In: a file whose form another project defines. Out: a `Sheet`, which is no persona yet: its questions, its pairs of
answers, its poles where it names them, and in words what could not be taken over. A form is one file here with
`@form(...)`; the keys that its objects must have tell it apart. Forms only: nothing of those projects is held here. The
files are untrusted, so they are read by `ground.untrusted`, and every mistake is told at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.registry import Registry
from steer_heal_love.ground.shown import shown
from steer_heal_love.ground.untrusted import MEGABYTE, json_lines, json_text, read_text, refuse
from steer_heal_love.nouns import Probe
from steer_heal_love.persona.table import LONGEST_PROMPT, MOST, a_text

LARGEST = 4 * MEGABYTE


class Entry(NamedTuple):
    """One object of a file, and where it stands, such as `line 3: `."""

    where: str
    data: Mapping[str, Any]


@dataclass
class Sheet:
    """What a file of another form gave. A text that it doesn't give is empty."""

    name: str = ""
    axis: str = ""
    pos: str = ""
    neg: str = ""
    questions: list[str] = field(default_factory=list)
    """questions without answers"""
    pairs: list[Probe] = field(default_factory=list)
    """questions with an answer of either pole; the question may be empty"""
    left_out: list[str] = field(default_factory=list)
    """in words, what of the file has no place in a persona"""
    beside: list[str] = field(default_factory=list)
    """texts of the file to write the poles from, shown as comments"""
    drafted: list[str] = field(default_factory=list)
    """in words, what was written by a template or a model"""


class Form(NamedTuple):
    """The keys that each object of this form has, and how the objects become a sheet; mistakes go to its second argument."""

    keys: tuple[str, ...]
    read: Callable[[Sequence[Entry], list[str]], Sheet]


forms: Registry[Form] = Registry("form of a persona's file", __name__)


def form(name: str, *keys: str) -> Callable[[Any], Any]:
    """Register the reader of a form whose objects have these keys."""

    def register(read: Callable[[Sequence[Entry], list[str]], Sheet]) -> Any:
        forms.register(name, Form(keys, read))
        return read

    return register


def read(path: Path, name: str = "auto") -> tuple[str, Sheet]:
    """The form of a file, and its sheet. Raises `UserError` that lists what is wrong with it."""
    label = f"persona file {path}"
    if name != "auto":
        _ = forms[name]
    found, wrong = entries(path, label)
    refuse(label, wrong, "The file must be one JSON object, a JSON list of objects, or one object a line.")
    chosen = name if name != "auto" else recognised(found, label)
    keys = forms[chosen].keys
    wrong = [f"{e.where}{k}: missing" for e in found for k in keys if k not in e.data]
    then = f"It was read as {chosen}, whose objects have {', '.join(keys)}: mend those places, or give another --format."
    refuse(label, wrong, then)
    sheet = forms[chosen].read(found, wrong)
    refuse(label, wrong, then)
    sheet.name = sheet.name or path.stem[:100]
    return chosen, sheet


def entries(path: Path, label: str) -> tuple[list[Entry], list[str]]:
    """Every object of a JSON object, a JSON list or JSON lines, and what is wrong with any."""
    text = read_text(path, label, most=LARGEST)
    if text.lstrip()[:1] == "[" or is_one_object(text, label):
        found = json_text(text, label)
        items = found.data if isinstance(found.data, list) else [found.data]
        wrong = found.all([])
        places = [f"[{i}]: " for i in range(len(items))] if isinstance(found.data, list) else [""]
    else:
        lines = list(json_lines(path, label, most=LARGEST))
        items = [f.data for _, f in lines]
        places = [f"line {n}: " for n, _ in lines]
        wrong = [f"{at}{m}" for at, (_, f) in zip(places, lines, strict=True) for m in f.all([])]
    if not wrong:
        wrong = [
            f"{at}expected an object, found {type(i).__name__}"
            for at, i in zip(places, items, strict=True)
            if not isinstance(i, dict)
        ]
    if not items:
        wrong.append("expected at least one object, found none")
    elif len(items) > MOST:
        wrong.append(f"{len(items)} objects, at most {MOST}")
    return [Entry(at, i) for at, i in zip(places, items, strict=True) if isinstance(i, dict)], wrong


def is_one_object(text: str, label: str) -> bool:
    """Whether the whole text is one JSON object, and not one a line."""
    try:
        return isinstance(json_text(text, label).data, dict)
    except UserError:
        return False


def recognised(found: Sequence[Entry], label: str) -> str:
    """The form whose keys the first object has. Raises `UserError` where none, or more than one, has them."""
    keys = set(found[0].data) if found else set()
    fitting = [n for n, f in forms.items() if set(f.keys) <= keys]
    if len(fitting) == 1:
        return fitting[0]
    known = "; ".join(f"{n}: {', '.join(f.keys)}" for n, f in forms.items())
    has = ", ".join(sorted(map(str, keys)))[:300] or "no object"
    raise UserError(
        f"{shown(label)}: its form was not recognised by its first object's keys ({shown(has)}); give --format. "
        f"The forms and their keys: {known}."
    )


def text(entry: Entry, key: str, wrong: list[str], *, longest: int = LONGEST_PROMPT) -> str:
    """A text that must be there; empty after a mistake."""
    value = entry.data.get(key)
    found = list(a_text(f"{entry.where}{key}", value, longest))
    wrong += found
    return "" if found or not isinstance(value, str) else value.strip()


def texts(entry: Entry, key: str, wrong: list[str], *, must: bool = True) -> list[str]:
    """A list of texts; empty where it may be missing and is."""
    value = entry.data.get(key)
    if value is None and not must:
        return []
    if not isinstance(value, list) or len(value) > MOST:
        wrong.append(f"{entry.where}{key}: expected a list of at most {MOST} texts, found {value!r:.60}")
        return []
    found = [m for i, v in enumerate(value) for m in a_text(f"{entry.where}{key}[{i}]", v, LONGEST_PROMPT)]
    wrong += found
    return [] if found else [v.strip() for v in value]


def other_keys(found: Sequence[Entry], *used: str) -> list[str]:
    """A sentence that names the keys that nothing was taken from."""
    keys = sorted({str(k)[:60] for e in found for k in e.data if k not in used})
    return [f"Nothing is taken from {', '.join(keys[:12])}."] if keys else []
