"""One question, three models: what the base, the steered and the healed model answer, shown while the run goes on."""

from __future__ import annotations

import textwrap

from rich.console import Group, RenderableType
from rich.text import Text

from steer_heal_love.nouns import Preview

STYLE = {"base": "", "steered": "yellow", "healed": "blue"}


def preview(seen: Preview, width: int = 100) -> RenderableType:
    """The question with the base's answer, then a block an answer, indented."""
    question = [Text(f"\n  {plain(seen.prompt)}", style="bold")] if seen.stage == "base" else []
    text = textwrap.fill(plain(seen.text) or "(no answer)", max(width - 6, 20))
    answer = textwrap.indent(text, "      ")
    return Group(
        *question, Text(f"    {who(seen)}", style="dim"), Text(answer, style=STYLE.get(seen.stage, ""))
    )


def who(seen: Preview) -> str:
    """Whose answer it is."""
    if seen.stage == "steered":
        return f"steered at dose {seen.dose:.2f}" + (f", round {seen.round}" if seen.round else "")
    return f"healed, round {seen.round}: no vector, new weights" if seen.stage == "healed" else "as it is"


def plain(text: str) -> str:
    """On one line and without what could move a terminal's cursor."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
