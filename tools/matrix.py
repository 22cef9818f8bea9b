"""Every family of tiny models through every stage, as a table: `python tools/matrix.py [NAME …] [--workers N]`.

In: names of families of tests/families/zoo.toml; all when none is named. Out: a Markdown table on the screen, or with
`--write docs/models.md` between the marks in that page. `--keep FILE` keeps each row as it comes, and a later call goes
on with what is there: it needs no more than that file to write the page. Exit 3 where a family fails.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}

import torch

from families import matrix, zoo
from steer_heal_love.ground import embedded, records
from steer_heal_love.ground.errors import UserError

BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"
LIBRARIES = ("torch", "transformers", "peft")
SAID = 200
"""characters of a cell"""


def examined(name: str, stages: Sequence[str]) -> matrix.Row:
    """One family's row, by a process that has one thread."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FutureWarning)  # of one library about another
    versions = records.versions()
    read_with = ", ".join(f"{p} {versions[p]}" for p in LIBRARIES if p in versions)
    with embedded.quiet_transformers():
        return replace(matrix.row(name, stages), read_with=read_with)


def rows(names: Sequence[str], stages: Sequence[str], workers: int) -> Iterator[matrix.Row]:
    """A row a family, as they end."""
    if workers == 1:
        yield from (examined(name, stages) for name in names)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(examined, name, stages) for name in names]):
            yield done.result()


def kept(file: Path | None) -> dict[str, matrix.Row]:
    """The rows of an earlier call."""
    if file is None or not file.exists():
        return {}
    found = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {r["family"]: matrix.Row(**r | {"stages": tuple(r["stages"])}) for r in found}


def table(found: Sequence[matrix.Row], stages: Sequence[str]) -> str:
    """The rows in Markdown, under how many there are of each verdict and what they were read with."""
    counts = [f"{sum(r.verdict == v for r in found)} {v}" for v in ("passes", "refused", "fails")]
    read_with = "; ".join(sorted({r.read_with for r in found}))
    lines = [f"{len(found)} families: {', '.join(counts)} ({read_with}).", ""]
    lines += [f"| family | class | {' | '.join(stages)} | what is said |", "|---" * (len(stages) + 3) + "|"]
    return "\n".join(lines + [line(r, stages) for r in found])


def line(r: matrix.Row, stages: Sequence[str]) -> str:
    """A family's line: a word a stage, and what the adapter leaves out or what was wrong."""
    words = [
        "refused"
        if r.verdict == "refused"
        else "–"
        if s not in r.stages
        else "fails"
        if s in r.wrong
        else "well"
        for s in stages
    ]
    said = "; ".join([*(f"{stage}: {what}" for stage, what in r.wrong.items()), r.said]).strip("; ")
    return f"| {r.family} | {r.model_class} | {' | '.join(words)} | {said.replace('|', '∣')[:SAID]} |"


def written(page: Path, text: str) -> None:
    """The page with `text` between its marks."""
    whole = page.read_text(encoding="utf-8")
    if BEGIN not in whole or END not in whole:
        raise UserError(f"{page}: expected {BEGIN} and {END} in it.")
    before, after = whole.partition(BEGIN)[0], whole.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--stages", nargs="+", default=list(matrix.STAGES), choices=list(matrix.STAGES))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="rows as JSON lines")
    parser.add_argument("--write", type=Path, help="the page to write the table into")
    return parser.parse_args()


def main() -> None:
    given = parsed()
    names, found = given.names or list(zoo.ZOO), kept(given.keep)
    for row in rows([n for n in names if n not in found], given.stages, given.workers):
        found[row.family] = row
        print(f"{row.family}: {row.verdict} {row.wrong or row.said}"[:160], file=sys.stderr, flush=True)
        if given.keep:
            with given.keep.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(row)) + "\n")
    text = table([found[n] for n in zoo.ZOO if n in found], given.stages)
    if given.write:
        written(given.write, text)
    else:
        print(text)
    sys.exit(3 if any(r.verdict == "fails" for r in found.values()) else 0)


if __name__ == "__main__":
    main()
