"""The command line where the terminal is poor, the reader gone or the device full: no verb ends in a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from steer_heal_love import cli
from steer_heal_love.cli.screen import PACKAGE, ours_as_lines

SHL = [sys.executable, "-m", "steer_heal_love"]
SRC = str(Path(cli.__file__).parents[2])


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": SRC, **more}


@pytest.mark.parametrize("verb", ["run", "export", ""])
@pytest.mark.parametrize(
    "where",
    [
        {"PYTHONIOENCODING": "cp1252"},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
    ids=["cp1252", "ascii", "C"],
)
def test_help_is_shown_in_any_encoding(verb, where):
    told = subprocess.run([*SHL, *verb.split(), "--help"], capture_output=True, env=environment(**where))
    assert told.returncode == 0 and not told.stderr, told.stderr[-500:]
    assert b"usage" in told.stdout


def test_a_warning_of_ours_is_a_line_and_a_librarys_is_as_python_shows_it(capsys, monkeypatch):
    theirs = []
    monkeypatch.setattr(warnings, "showwarning", lambda *found, **_: theirs.append(str(found[0])))
    monkeypatch.setattr(warnings, "filters", [("always", None, Warning, None, 0)])
    with ours_as_lines():
        warnings.warn_explicit("slow \x1b[31mmodel", UserWarning, str(PACKAGE / "ground" / "models.py"), 1)
        warnings.warn_explicit("old name", FutureWarning, str(PACKAGE / "ground" / "models.py"), 2)
        warnings.warn_explicit("elsewhere", UserWarning, "/lib/other.py", 3)
    assert capsys.readouterr().err == "warning: slow \\x1b[31mmodel\n"
    assert theirs == ["old name", "elsewhere"]


@pytest.mark.parametrize("argv", [["run", "--help"], ["list", "personas"], ["--help"]], ids=" ".join)
def test_a_reader_that_goes_away_is_no_fault(argv):
    read, write = os.pipe()
    os.close(read)
    told = subprocess.run([*SHL, *argv], stdout=write, stderr=subprocess.PIPE, env=environment())
    os.close(write)
    assert told.returncode == 141 and told.stderr == b"", told.stderr[-500:]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("argv", [["run", "--help"], ["list", "personas"]], ids=" ".join)
def test_a_full_device_is_a_message(argv):
    with open("/dev/full", "w") as full:
        told = subprocess.run(
            [*SHL, *argv], stdout=full, stderr=subprocess.PIPE, text=True, env=environment()
        )
    assert (
        told.returncode == 2 and told.stderr == "error: cannot write the output: No space left on device.\n"
    )


def test_an_error_shows_what_a_file_says_escaped(capsys, tmp_path):
    (tmp_path / "p.toml").write_text('name = "[/b]\\u202e"\n"a\\u009b[bold]" = 1', encoding="utf-8")
    with pytest.raises(SystemExit) as e:
        cli.main(["lint", str(tmp_path / "p.toml")])
    said = capsys.readouterr().err
    assert e.value.code == 2 and "[bold]" in said and "\\x9b" in said and "\x9b" not in said
