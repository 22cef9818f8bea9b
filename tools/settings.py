"""docs/settings.md: every setting of a run with its default and its meaning, from the docstrings of config.py.

.venv/bin/python tools/settings.py > docs/settings.md
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any

from steer_heal_love import config, presets

HEAD = """# Settings

Every setting of a run, with its default and its meaning. In a command a setting is `--name value`, with a dash for each
underscore: `shl run --walk.survival 0.9`. In a file for `--config` it is TOML, with a table for each prefix. In Python it is a
keyword of `shl.run`, with a dictionary for each prefix. `shl run --help` prints the same list.

A preset changes some defaults: `--preset NAME`, or the one that fits the device if none is named. The last section lists what
each changes.

This page is printed by `python tools/settings.py`, and a test compares it with the code.
"""


def explained(kind: type) -> dict[str, str]:
    """By field, the string that stands below it in the source."""
    (body,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(body, ast.ClassDef)
    return {
        field.target.id: " ".join(said.value.value.split())
        for field, said in zip(body.body, body.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(said, ast.Expr)
        and isinstance(said.value, ast.Constant)
        and isinstance(said.value.value, str)
    }


def shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (tuple, list)):
        return " ".join(map(shown, value)) or "(empty)"
    return str(value) if value != "" else "(empty)"


def section(settings: Any, prefix: str) -> str:
    """A heading and a table of the settings that aren't tables themselves."""
    said = explained(type(settings))
    rows = "\n".join(
        f"| `{prefix}{f.name}` | {shown(value)} | {said[f.name].replace('|', chr(92) + '|')} |"
        for f in dataclasses.fields(settings)
        if not dataclasses.is_dataclass(value := getattr(settings, f.name))
    )
    about = " ".join((inspect.getdoc(type(settings)) or "").split())
    title = prefix.rstrip(".") or "Of the whole run"
    return f"## {title}\n\n{about}\n\n| setting | default | what it is |\n|---|---|---|\n{rows}\n"


def leaves(changes: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in changes.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"`{prefix}{name}` {shown(value)}"


def markdown() -> str:
    whole = config.RunConfig()
    parts = [HEAD, section(whole, "")]
    for f in dataclasses.fields(whole):
        if dataclasses.is_dataclass(part := getattr(whole, f.name)):
            parts.append(section(part, f"{f.name}."))
    made = "\n".join(
        f"| {name} | {', '.join(leaves(changes)) or 'nothing'} |" for name, changes in presets.PRESETS.items()
    )
    parts.append(f"## Presets\n\n| preset | changes |\n|---|---|\n{made}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(markdown(), end="")
