"""Every family of tiny models through the doctor, as a table: `python tools/matrix.py [NAME …] [--write docs/models.md]`.

In: names of families of tests/families/zoo.py (all when none is named), or the tiny models here where that is absent.
Out: a Markdown table on the screen, or between the marks in a page. Exit 3 where a check fails.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

import torch

from steer_heal_love import doctor, presets
from steer_heal_love.ground import embedded, models, records
from steer_heal_love.ground.errors import UserError

BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"
Build = Callable[[str], tuple[Any, Any]]


@dataclass(frozen=True)
class Row:
    """What became of one family: `verdict` is whole, noted, fails or refused."""

    family: str
    kind: str
    verdict: str
    said: str


def builders() -> tuple[list[str], Build]:
    """The families' names, and what builds one."""
    if (ROOT / "tests" / "families" / "zoo.py").exists():
        zoo = import_module("families.zoo")
        return list(zoo.ZOO), zoo.build
    tiny = import_module("tiny_model")

    def build(_name: str) -> tuple[Any, Any]:
        tok = tiny.build_tokenizer()
        return tiny.build_model(len(tok), tok.eos_token_id), tok

    return ["llama"], build


def examined(name: str, build: Build) -> Row:
    """Built, saved, loaded as a user's folder would be, and through every check."""
    with tempfile.TemporaryDirectory() as folder, embedded.quiet_transformers():
        model, tok = build(name)
        kind = type(model).__name__
        model.save_pretrained(folder)
        tok.save_pretrained(folder)
        try:
            loaded, tok = models.load(folder, device="cpu", dtype="float32")
        except UserError as e:
            return Row(name, kind, "refused", str(e).replace(repr(folder), name).splitlines()[0])
        found = doctor.examine(doctor.Patient(name, loaded, tok, presets.preset("cpu")))
    bad = [f for f in found if f.verdict == "fails"]
    odd = [f for f in found if f.verdict == "note"]
    if bad:
        return Row(name, kind, "fails", "; ".join(f"{f.check}: {f.seen}" for f in bad))
    return Row(name, kind, "noted" if odd else "whole", "; ".join(f"{f.check}: {f.seen}" for f in odd))


def table(rows: list[Row]) -> str:
    """The rows in Markdown, under how many there are of each verdict and what they were read with."""
    versions = records.versions()
    read = ", ".join(f"{p} {versions[p]}" for p in ("torch", "transformers", "peft") if p in versions)
    counts = [f"{sum(r.verdict == v for r in rows)} {v}" for v in ("whole", "noted", "refused", "fails")]
    lines = [f"{len(rows)} families: {', '.join(counts)} ({read}).", ""]
    lines += ["| family | class | verdict | what is said |", "|---|---|---|---|"]
    lines += [f"| {r.family} | {r.kind} | {r.verdict} | {r.said.replace('|', '∣')[:220]} |" for r in rows]
    return "\n".join(lines)


def written(page: Path, text: str) -> None:
    """The page with `text` between its marks."""
    whole = page.read_text(encoding="utf-8")
    if BEGIN not in whole or END not in whole:
        raise UserError(f"{page}: expected {BEGIN} and {END} in it.")
    before, after = whole.partition(BEGIN)[0], whole.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def rows_of(names: list[str], build: Build) -> Iterator[Row]:
    for name in names:
        row = examined(name, build)
        print(f"{row.family}: {row.verdict} {row.said}"[:160], file=sys.stderr, flush=True)
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    known, build = builders()
    assert find_spec("peft"), "the export check reloads with PEFT; install the dev group"
    rows = list(rows_of(given.names or known, build))
    if given.write:
        written(given.write, table(rows))
    else:
        print(table(rows))
    sys.exit(3 if any(r.verdict == "fails" for r in rows) else 0)


if __name__ == "__main__":
    main()
