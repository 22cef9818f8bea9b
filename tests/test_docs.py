"""The guide keeps its word: its commands are commands, its links lead somewhere, and its site loads nothing from outside."""

from __future__ import annotations

import functools
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tyro

from steer_heal_love import cli
from steer_heal_love import filter as sieve
from steer_heal_love.cli import runs

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
HISTORY = {"results-history.md"}
"""pages whose commands belong to earlier versions, as the folders `decisions` and `experiments` do"""
PAGES = [ROOT / "README.md", *(p for p in sorted(DOCS.glob("*.md")) if p.name not in HISTORY)]
STANDS_FOR = {"S": "0", "P": "love", "M": "smollm2", "T": "64", "N": "1"}
"""letters that stand for a value in a command"""
UNFINISHED = ("…", "...", "COMMAND")
FENCED, SPAN = re.compile(r"```(?:console)?\n(.*?)```", re.S), re.compile(r"`(shl [^`]+)`")
SCRIPT = re.compile(r"\bpython ((?:\w+/)+\w+\.py)")
LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)|src=\"([^\"]+)\"")


def commands(page: Path) -> list[str]:
    """Every whole `shl` command of a page: lines of code blocks, with the indented lines that go on with them, and code
    inside sentences that has options."""
    text = page.read_text(encoding="utf-8")
    blocks = [re.sub(r"\n +", " ", block) for block in FENCED.findall(text)]
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("shl ")]
    spans = [" ".join(s.split()) for s in SPAN.findall(re.sub(r"```.*?```", "", text, flags=re.S))]
    # `shl run --resume` in a sentence names an option, and is no command to give.
    whole = [s for s in spans if (len(s.split()) > 2 or " --" in s) and not s.split()[-1].startswith("--")]
    whole = [s for s in whole if s not in ("shl vector convert", "shl vector extract", "shl vector inspect")]
    return [c for c in lines + whole if not any(mark in c for mark in UNFINISHED)]


FOUND = sorted({(page.name, c) for page in PAGES for c in commands(page)})


def parse(argv: list[str]) -> None:
    """Parse as `shl` does, and run nothing. Ends in SystemExit for what the parser refuses."""
    name = " ".join(argv[:2]) if argv[0] in ("vector", "persona") else argv[0]
    rest = argv[len(name.split()) :]
    if name in cli.WITH_SETTINGS:
        kind = {"run": runs.Run, "compare": runs.Compare}[name]
        tyro.cli(kind, args=runs.spelled(rest, kind)).check()
        return
    verb = cli.COMMANDS[name]

    @functools.wraps(verb)
    def parsed(*_args, **_kwargs):
        return None

    tyro.cli(parsed, args=rest)


@pytest.mark.parametrize(("page", "command"), FOUND, ids=lambda v: v[:70])
def test_a_command_of_the_guide_is_one(page, command):
    parse([STANDS_FOR.get(word, word) for word in shlex.split(command)[1:]])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_a_script_of_the_guide_is_there(page):
    missing = [s for s in SCRIPT.findall(page.read_text(encoding="utf-8")) if not (ROOT / s).is_file()]
    assert not missing


def test_the_filter_check_of_the_guide_drops_what_it_says_and_its_test_passes(monkeypatch):
    """Run as they stand on the page, the check registered like any other."""
    code, test = re.findall(
        r"```python\n(.*?)```", (DOCS / "change-one-thing.md").read_text(encoding="utf-8"), re.S
    )
    monkeypatch.setattr(sieve.checks, "_items", dict(sieve.checks.items()))
    given: dict[str, Any] = {}
    for part in (code, test):
        exec(compile(part, "change-one-thing.md", "exec"), given)  # our own page, not model output
    scored = lambda text: SimpleNamespace(completion=SimpleNamespace(text=text))
    for text, value in (("Why? How? When?", 3.0), ("Because.", 0.0)):
        assert sieve.checks["questions"].value(scored(text)) == value
    check = given["test_three_questions_fall"]
    (cases,) = check.pytestmark
    for text, found in cases.args[1]:
        check(scored, text, found)
    assert sieve.checks["questions"].limit == 2.0


def test_the_parser_refuses_what_is_no_command():
    with pytest.raises(SystemExit):
        parse(["run", "--no-such-setting", "1"])
    assert len(FOUND) > 20


@pytest.mark.parametrize(
    "page", sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")]), ids=str
)
def test_links_lead_somewhere(page):
    targets = [a or b for a, b in LINK.findall(page.read_text(encoding="utf-8"))]
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing, f"{page}: {missing}"


def test_every_experiment_and_decision_is_in_its_index_and_says_its_outcome():
    for folder, word in (("experiments", "**Outcome.**"), ("decisions", "# ")):
        index = (DOCS / folder / "README.md").read_text(encoding="utf-8")
        for page in DOCS.joinpath(folder).glob("[0-9]*.md"):
            assert f"({page.name})" in index, page
            assert word in page.read_text(encoding="utf-8"), page


def test_the_site_builds_strictly_and_loads_nothing_from_outside(tmp_path):
    mkdocs = shutil.which("mkdocs")
    if not mkdocs:
        pytest.skip("mkdocs is not installed; `make docs` installs and runs it")
    done = subprocess.run(
        [mkdocs, "build", "--strict", "-d", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    loads = re.compile(
        r"<(?:script|img|iframe)[^>]*\ssrc=\"?(?:https?:)?//|<link[^>]*(?:stylesheet|preload|icon|preconnect)[^>]*href=\"?(?:https?:)?//"
    )
    for page in tmp_path.rglob("*.html"):
        assert not loads.search(page.read_text(encoding="utf-8")), page


def test_the_page_of_settings_is_the_code(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import settings

    page = (DOCS / "settings.md").read_text(encoding="utf-8")
    assert page == settings.markdown(), "out of date: python tools/settings.py > docs/settings.md"
    assert "`walk.survival` | 0.8 |" in page and "`rounds` 2," in page
