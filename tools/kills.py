"""Kill runs of a tiny model at random moments, resume them, and compare with an unbroken run to the byte.

    PYTHONPATH=src python3 tools/kills.py --runs 500 --compare 20 --workers 28 --limit 420 --out kills.json

Needs this source tree and the package's own dependencies, Linux, and no GPU. Each case is a seed, from --first on: it
says after how much of an unbroken run's CPU time the process is killed, and in one case of three that the resumed one
is killed too. A run that ends before its kill is thrown away and begun again with an earlier one. One unbroken run a
worker goes first: they give that time under the same load, and must equal each other. Odd seeds conclude a round beside
the next one, as a GPU's runs do. A case is lost when a sitting fails or hangs; it is different when a file differs; it
lacks events when the log's list of finished steps, with their files' hashes, isn't the unbroken run's. Exit 1 when there
is any such case. Cases that --limit seconds don't suffice for are counted as not done, never as survived.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

BEGAN = time.monotonic()
ROOT = Path(__file__).resolve().parents[1]
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "STEER_HEAL_LOVE_CACHE": "off",
    "CUDA_VISIBLE_DEVICES": "",
}
CHEAP = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "JAXTYPING_DISABLE": "1"}
"""a thread each, and no checks of shapes, which the tests make"""
os.environ |= QUIET | CHEAP
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

import torch

import steer_heal_love
import tiny_run
from steer_heal_love import conclusion, loop, report
from steer_heal_love.ground import records

AGAIN = 1 / 3
"""share of the cases that are killed a second time"""
LATEST, TRIES = 0.9, 8
"""share of an unbroken run's time by which the first kill comes; and how often a case that ended before it is begun"""
HANGS_AFTER = 300.0
"""seconds of a sitting after which it is taken to hang"""


@dataclass
class Case:
    """One run, killed `at` these shares of the unbroken run's CPU time, and what became of it."""

    kind: str
    seed: int
    at: list[float] = field(default_factory=list)
    kills: int = 0
    """kills that came before the sitting's own end"""
    cpu_seconds: float = 0.0
    lost: str = ""
    different: list[str] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
    home: str = ""
    """where the files of a case lie that did not survive"""

    @property
    def survived(self) -> bool:
        return not (self.lost or self.different or self.lacking)


def ready() -> None:
    """Import all that a child will, so that none does; and keep its garbage collector off what lies here already."""
    for module in pkgutil.walk_packages(steer_heal_love.__path__, "steer_heal_love."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ModuleNotFoundError):  # some need an extra
                importlib.import_module(module.name)
    torch.set_num_threads(1)
    tiny_run.made_cheap()
    # Asked of git once: the source tree may change meanwhile, and then the manifests would.
    found = records.commit()
    records.commit = lambda: found
    gc.collect()
    gc.freeze()


def job(kind: str, resume: Path | None) -> None:
    """One sitting, in this process."""
    if kind == "compare":
        tiny_run.comparison("runs")
    elif resume:
        loop.run(resume=resume)
    else:
        tiny_run.run("runs")


def forked(work: Any, *given: Any) -> int:
    """The number of a new process that does the work and ends; its status is 1 where the work raises."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work(*given)
            status = 0
        except BaseException:  # the parent must never return from here twice
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return child


def seated(home: Path, kind: str, resume: Path | None) -> None:
    """A sitting that works in `home` and says there what it has to say."""
    os.chdir(home)
    os.dup2(os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    os.dup2(1, 2)
    job(kind, resume)


def sitting(home: Path, kind: str, kill_after: float | None) -> tuple[str, float]:
    """How a sitting ended, and its CPU seconds: "" for well, "killed", or what went wrong."""
    child = forked(seated, home, kind, begun(home) if kind == "run" else None)
    began, killed = time.monotonic(), False
    while True:
        ended, status, used = os.wait4(child, os.WNOHANG)
        if ended:
            break
        hangs = time.monotonic() - began > HANGS_AFTER
        if hangs or (kill_after is not None and not killed and cpu_seconds(child) >= kill_after):
            os.kill(child, signal.SIGKILL)
            killed = True
            if hangs:
                os.waitpid(child, 0)
                return f"hangs for {HANGS_AFTER:g} s", 0.0
        time.sleep(0.005)
    spent = used.ru_utime + used.ru_stime
    if os.WIFSIGNALED(status):
        return ("killed" if killed else f"signal {os.WTERMSIG(status)}"), spent
    code = os.waitstatus_to_exitcode(status)
    return (f"exit {code}: {(home / 'said.txt').read_text()[-2000:]}" if code else ""), spent


def cpu_seconds(pid: int) -> float:
    """CPU time of another process that has not been waited for yet (its clock's number is made as glibc makes it)."""
    return time.clock_gettime(~pid << 3 | 2)


def case(kind: str, seed: int, right: Path, seconds: float, to: Path) -> None:
    """A case from its kills to its comparison, written to the file `to`."""
    draw, home = random.Random(f"{kind}-{seed}"), to.with_suffix("")
    home.mkdir()
    concluded(seed)
    found = Case(kind, seed, home=str(home))
    latest = LATEST * seconds
    for _ in range(TRIES):
        first = draw.uniform(0, latest)
        second = [draw.uniform(0, max(seconds - first, seconds / 10))] if draw.random() < AGAIN else []
        found.at = [round(k / seconds, 4) for k in (first, *second)]
        how, spent = sitting(home, kind, first)
        found.cpu_seconds += spent
        if how:
            break
        latest = first
        shutil.rmtree(home)
        home.mkdir()
    found.kills += how == "killed"
    for kill in [*second, None] if how == "killed" else []:
        how, spent = sitting(home, kind, kill)
        found.cpu_seconds += spent
        found.kills += how == "killed"
        if how not in ("", "killed"):
            break
    if how:
        found.lost = how
    else:
        compared(found, newest(home), right)
    finish(found, home, to)


def unbroken(kind: str, seed: int, _right: Path, _seconds: float, to: Path) -> None:
    """A run that nobody kills; its files stay."""
    home = to.with_suffix("")
    home.mkdir()
    concluded(seed)
    found = Case(kind, seed, home=str(home))
    found.lost, found.cpu_seconds = sitting(home, kind, None)
    finish(found, None, to)


def concluded(seed: int) -> None:
    """How runs conclude their rounds from here on, in this process and those that it forks. Drawing by another process takes
    longer than the whole run, so only one in five that conclude beside the next round begin to draw; the others' process sleeps."""
    conclusion.processor_is_free = lambda _r: seed % 2 == 1
    if seed % 10 != 1:
        report.command = lambda _run: ["sleep", "5"]


def finish(found: Case, home: Path | None, to: Path) -> None:
    if home and found.survived:
        shutil.rmtree(home)
        found.home = ""
    scratch = to.with_suffix(".part")
    scratch.write_text(json.dumps(asdict(found)))
    scratch.rename(to)


def begun(home: Path) -> Path | None:
    """The run folder that a killed process left, if it had written its settings."""
    runs = sorted(p for p in (home / "runs").glob("*") if (p / "config.toml").is_file())
    return runs[0] if runs else None


def newest(home: Path) -> Path:
    """The folder to compare: the comparison's, or the one run in it that has a manifest."""
    runs = [p for p in (home / "runs").iterdir() if (p / "manifest.json").is_file()]
    return runs[0] if len(runs) == 1 else home / "runs"


def compared(found: Case, ours: Path, right: Path) -> None:
    """Files that differ, or that only one has; and steps that only one log has, or with other hashes."""
    found.different = tiny_run.differing(ours, right)
    logs = {str(p.relative_to(root)) for root in (ours, right) for p in root.rglob("events.jsonl")}
    for n in sorted(logs):
        mine, theirs = steps(ours / n), steps(right / n)
        found.lacking += [f"{n}: {s}" for s in sorted(mine.keys() | theirs) if mine.get(s) != theirs.get(s)]


def steps(log: Path) -> dict[str, Any]:
    """Every finished step with its files' hashes."""
    out: dict[str, Any] = {}
    for line in log.read_text().split("\n") if log.is_file() else ():
        with contextlib.suppress(json.JSONDecodeError):
            event = json.loads(line)
            if event["event"] == "done":
                out[event["file"]] = event["files"]
    return out


Work = tuple[Any, str, int, Path, float]
"""what a process of its own does: `case` or `unbroken`, and what it is given but its file"""


def done(works: list[Work], root: Path, workers: int, until: float) -> Iterator[Case]:
    """Each case as it ends, so many at a time; at `until` (monotonic seconds) those under way are ended, uncounted."""
    left, running = list(reversed(works)), dict[int, tuple[Work, Path]]()
    while left or running:
        while left and len(running) < workers:
            work, *given = one = left.pop()
            to = root / f"{work.__name__}-{one[1]}-{one[2]}.json"
            running[forked(led, work, (*given, to))] = one, to
        for child in [c for c in running if os.waitpid(c, os.WNOHANG)[0]]:
            one, to = running.pop(child)
            said = (
                json.loads(to.read_text())
                if to.is_file()
                else {"kind": one[1], "seed": one[2], "lost": "the case's own process ended"}
            )
            yield Case(**said)
        if time.monotonic() > until:
            for child in running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
            return
        time.sleep(0.02)


def led(work: Any, given: tuple[Any, ...]) -> None:
    """The work, as the leader of a group that can be ended whole."""
    os.setpgid(0, 0)
    work(*given)


def counts(kind: str, asked: int, cases: list[Case]) -> dict[str, Any]:
    mine = [c for c in cases if c.kind == kind]
    return {
        "asked": asked,
        "done": len(mine),
        "killed": sum(c.kills > 0 for c in mine),
        "killed_twice": sum(c.kills > 1 for c in mine),
        "ended_before_the_kill": sum(c.kills == 0 for c in mine),
        "survived": sum(c.survived for c in mine),
        "lost": sum(bool(c.lost) for c in mine),
        "different": sum(bool(c.different) for c in mine),
        "lacking_events": sum(bool(c.lacking) for c in mine),
    }


def asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=0, help="kills of a run")
    parser.add_argument("--compare", type=int, default=0, help="kills of a comparison")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds for everything")
    parser.add_argument("--out", type=Path, help="a JSON file for the counts and every case")
    return parser.parse_args()


def main() -> None:
    given = asked()
    until = BEGAN + given.limit
    wanted = {k: n for k, n in (("compare", given.compare), ("run", given.runs)) if n}
    ready()
    root = Path(tempfile.mkdtemp(prefix="kills-"))
    copies = [
        (unbroken, kind, i, root, 0.0) for i in range(max(1, given.workers // len(wanted))) for kind in wanted
    ]
    whole = list(done(copies, root, given.workers, until))
    if wrong := [c for c in whole if c.lost]:
        sys.exit(f"an unbroken {wrong[0].kind} fails: {wrong[0].lost}")
    if short := wanted.keys() - {c.kind for c in whole}:
        sys.exit(f"--limit {given.limit:g}: no unbroken {', '.join(sorted(short))} ended within it.")
    right = {kind: newest(Path(next(c.home for c in whole if c.kind == kind))) for kind in wanted}
    seconds = {kind: statistics.median(c.cpu_seconds for c in whole if c.kind == kind) for kind in wanted}
    for c in whole:
        compared(c, newest(Path(c.home)), right[c.kind])
    works = [(case, k, given.first + i, right[k], seconds[k]) for k, n in wanted.items() for i in range(n)]
    cases = []
    for c in done(works, root, given.workers, until):
        cases.append(c)
        if not c.survived:
            print(json.dumps(asdict(c), indent=1), flush=True)
    reported(given, wanted, whole, seconds, cases, time.monotonic() - BEGAN)
    bad = [c for c in [*cases, *whole] if not c.survived]
    if not bad:
        shutil.rmtree(root)
    sys.exit(bool(bad))


def reported(
    given: argparse.Namespace,
    wanted: dict[str, int],
    whole: list[Case],
    seconds: dict[str, float],
    cases: list[Case],
    wall: float,
) -> None:
    """Print the counts, and write them with every case."""
    found = {kind: counts(kind, n, cases) for kind, n in wanted.items()}
    controls = {
        k: {
            "runs": sum(c.kind == k for c in whole),
            "different": sum(not c.survived for c in whole if c.kind == k),
            "cpu_seconds": round(seconds[k], 2),
        }
        for k in wanted
    }
    record = {
        "counts": found,
        "unbroken": controls,
        "first_seed": given.first,
        "workers": given.workers,
        "wall_seconds": round(wall, 1),
        "may_differ": tiny_run.MAY_DIFFER,
        "cases": [asdict(c) for c in sorted(cases, key=lambda c: (c.kind, c.seed))],
    }
    if given.out:
        given.out.write_text(json.dumps(record, indent=1) + "\n")
    print(
        json.dumps({"counts": found, "unbroken": controls, "wall_seconds": record["wall_seconds"]}, indent=1)
    )


if __name__ == "__main__":
    main()
