"""What may reach a terminal: letters of every script as they are, everything that would act there escaped."""

from __future__ import annotations

import io
import unicodedata

import pytest
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from fuzz import fuzz
from steer_heal_love.cli.screen import Screen
from steer_heal_love.ground.shown import shown
from steer_heal_love.report import progress

ACTS = {"Cc", "Cs", "Zl", "Zp"}
ANY = st.text(st.characters(codec=None), max_size=200)


@fuzz(text=ANY)
def test_nothing_that_acts_is_left_and_showing_twice_changes_nothing(text: str) -> None:
    out = shown(text)
    assert not {unicodedata.category(c) for c in out} & ACTS
    assert not {unicodedata.bidirectional(c) for c in out} & {
        "LRE",
        "RLE",
        "LRO",
        "RLO",
        "PDF",
        "LRI",
        "RLI",
        "FSI",
        "PDI",
    }
    assert shown(out) == out


@pytest.mark.parametrize(
    "text", ["love [bold] [/] 🙂 אהבה", "模型 ünï", "می‌خواهید", "👩‍👧 नमस्ते", "C:\\new\\x1b"]
)
def test_names_of_every_script_stay(text: str) -> None:
    assert shown(text) == text


@pytest.mark.parametrize(
    ("text", "out"),
    [
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u202eb", "a\\u202eb"),
        ("a\nb", "a\\nb"),
        ("\0", "\\x00"),
    ],
)
def test_what_acts_is_written_as_its_escape(text: str, out: str) -> None:
    assert shown(text) == out


def test_lines_stay_lines_where_they_are_meant() -> None:
    assert shown("a\n\tb\r\x1b", lines=True) == "a\n\tb\\r\\x1b"


def test_the_console_escapes_what_tables_and_texts_hold() -> None:
    file = io.StringIO()
    console = Screen(file=file, width=80)
    table = Table("name")
    table.add_row(Text("red\x1b[31m"))
    console.print(Text("a\u202eb"), table, Text("\x9b2J"))
    assert "red\\x1b" in file.getvalue() and "\\u202e" in file.getvalue() and "\\x9b2J" in file.getvalue()
    assert not any(unicodedata.category(c) in ACTS and c != "\n" for c in file.getvalue())


@pytest.mark.parametrize(
    "label", ["load /m/[old]/x", "load /m/[/b]/x", "load my[red]x", "load :heart: 模型 שלום"]
)
@pytest.mark.parametrize("terminal", [True, False])
def test_brackets_in_a_step_s_name_are_text(label: str, terminal: bool) -> None:
    file = io.StringIO()
    with (
        progress(Screen(file=file, force_terminal=terminal, width=100)) as track,
        track(label, 1) as advance,
    ):
        advance(1)
    assert label in file.getvalue()
