"""Every family of tiny models through every stage, as two tables, by root cause and by family: `python tools/matrix.py [NAME …] [--workers N]`.

It runs from a source tree with the tool's packages and needs nothing installed and no network. It takes the processor, or
with `--device cuda` a GPU, with the kernels and captured steps that a run takes there. In: names
of families of tests/families/zoo.toml; all when none is named. Out: a Markdown table on the screen, or with `--write
docs/models.md` between the marks in that page. `--keep FILE` keeps each row as it comes, and a later call goes on with
what is there: it needs no more than that file to write the page. Exit 3 where a family fails.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import sys
import time
import tomllib
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
HERE = [str(ROOT / "src"), str(ROOT / "tests"), str(ROOT / "tools")]
sys.path[:0] = HERE
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([*HERE, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
}

if not any(word.endswith("cuda") for word in sys.argv):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch

from families import matrix, zoo
from steer_heal_love.ground import embedded, records
from steer_heal_love.ground.errors import UserError

BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"
LIBRARIES = ("torch", "transformers", "peft", "liger-kernel")
WORDS = {"passes": "whole", "refused": "refused", "fails": "**fails**"}
CAUSES = ROOT / "tests/families/causes.toml"
SAID = 240
"""characters of a cell"""


class Late(BaseException):
    """A family took longer than its limit. No `Exception`: what tries the stages must not take it for one of theirs."""


def examined(name: str, stages: Sequence[str], limit: float, device: str) -> matrix.Row:
    """One family's row, by a process that has one thread."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FutureWarning)  # of one library about another
    gc.freeze()  # a run looks for garbage after each step, and the libraries' objects are none
    versions = records.versions()
    read_with = ", ".join(f"{p} {versions[p]}" for p in LIBRARIES if p in versions)
    read_with += f", {torch.cuda.get_device_name()}" if device == "cuda" else ""
    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        with embedded.quiet_transformers():
            found = matrix.row(name, stages, device)
    except Late:
        found = matrix.Row(
            name, zoo.ZOO[name].kind, "fails", wrong={"time": f"over {limit:g} s"}, device=device
        )
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return replace(found, read_with=read_with)


def late(_signal: int, _frame: FrameType | None) -> None:
    raise Late


def rows(
    names: Sequence[str], stages: Sequence[str], workers: int, limit: float, device: str
) -> Iterator[matrix.Row]:
    """A row a family, as they end."""
    if workers == 1 or len(names) < 2:
        yield from (examined(name, stages, limit, device) for name in names)
        return
    # The libraries are read once, by a server that then forks; a worker's own reading would cost as much as a family.
    context = get_context("forkserver")
    context.set_forkserver_preload(["families.matrix", "steer_heal_love.loop", "steer_heal_love.report"])
    with ProcessPoolExecutor(min(workers, len(names)), mp_context=context) as pool:
        each = [pool.submit(examined, name, stages, limit, device) for name in names]
        for done in as_completed(each):
            yield done.result()


def kept(file: Path | None, device: str) -> dict[str, matrix.Row]:
    """The rows of an earlier call on this device."""
    if file is None or not file.exists():
        return {}
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    found = [matrix.Row(**row | {"stages": tuple(row["stages"])}) for row in rows]
    return {row.family: row for row in found if row.device == device}


def table(found: Sequence[matrix.Row]) -> str:
    """The rows in Markdown, under how many there are of each verdict and what they were read with."""
    counts = [
        f"{sum(r.verdict == v for r in found)} {word}"
        for v, word in zip(WORDS, ("whole", "refused", "fail"), strict=True)
    ]
    read_with = "; ".join(sorted({r.read_with for r in found}))
    stages = sorted({r.stages for r in found if r.stages})
    tried = "; ".join(", ".join(each) for each in stages)
    lines = [f"{len(found)} families: {', '.join(counts)} ({read_with}). Stages: {tried}.", ""]
    lines += ["| family | class | result | a LoRA reaches | what is said |", "|---|---|---|---:|---|"]
    return "\n".join(lines + [line(r) for r in found])


def line(r: matrix.Row) -> str:
    """A family's line: what became of it, the share of the band that a LoRA adapts, and what was wrong or is left out."""
    reach = "" if r.reach is None else f"{r.reach:.0%}"
    why = [f"{stage}: {what}" for stage, what in r.wrong.items()] or [r.said.split(". ")[0]]
    at = f"in {r.load_seconds:.1f} s: " if r.verdict == "refused" and r.load_seconds is not None else ""
    said = " ".join("; ".join(why).split()).replace("|", "∣")
    return f"| {r.family} | {r.model_class} | {WORDS[r.verdict]} | {reach} | {at}{said[:SAID]} |"


def by_cause(found: Sequence[matrix.Row]) -> str:
    """How many of the families that each root cause concerned are whole or refused now; tests/families/causes.toml."""
    became = {r.family: r.verdict for r in found}
    lines = [
        "| root cause | before | families | whole now | refused now | fail now |",
        "|---|---|---:|---:|---:|---|",
    ]
    for cause, entry in tomllib.loads(CAUSES.read_text(encoding="utf-8")).items():
        verdicts = {name: became[name] for name in entry["families"] if name in became}
        whole, refused = (sum(v == word for v in verdicts.values()) for word in ("passes", "refused"))
        failing = ", ".join(name for name, v in verdicts.items() if v == "fails") or "none"
        lines.append(f"| {cause} | {entry['before']} | {len(verdicts)} | {whole} | {refused} | {failing} |")
    return "\n".join(lines)


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
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    parser.add_argument(
        "--limit", type=float, default=600, help="seconds a family; beyond them it has failed"
    )
    parser.add_argument("--keep", type=Path, help="rows as JSON lines")
    parser.add_argument("--write", type=Path, help="the page to write the table into")
    return parser.parse_args()


def main() -> None:
    given, began = parsed(), time.monotonic()
    names, found = given.names or list(zoo.ZOO), kept(given.keep, given.device)
    todo = [n for n in names if n not in found]
    for row in rows(todo, given.stages, given.workers, given.limit, given.device):
        found[row.family] = row
        print(f"{row.family}: {row.verdict} {row.wrong or row.said}"[:160], file=sys.stderr, flush=True)
        if given.keep:
            with given.keep.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(row)) + "\n")
    print(f"{len(todo)} families in {time.monotonic() - began:.0f} s", file=sys.stderr)
    there = [found[n] for n in zoo.ZOO if n in found]
    text = f"{by_cause(there)}\n\n{table(there)}"
    if given.write:
        written(given.write, text)
    else:
        print(text)
    sys.exit(3 if any(r.verdict == "fails" for r in found.values()) else 0)


if __name__ == "__main__":
    main()
