"""Kill runs of a tiny model at random moments, resume them, and compare with an unbroken run to the byte.

    python tools/kills.py --runs 500 --workers 14 --out kills.json
    python tools/kills.py --compare 20 --workers 14

Needs this source tree and the package's own dependencies. Each case is a seed, from --first on: it says when the process
is killed, and in one case of three that the resumed one is killed too. A case is lost when the resumed run does not end,
or when a file, or the log's list of finished steps, differs from the unbroken run's. Exit 1 when one is lost.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "STEER_HEAL_LOVE_CACHE": "off", "OMP_NUM_THREADS": "1"}  # fmt: skip
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

import torch

from steer_heal_love import compare, loop
from steer_heal_love.config import Grid
from steer_heal_love.ground import models
from tiny_model import build_model, build_tokenizer

SETTINGS: dict[str, Any] = {
    "persona": "love", "model": "tiny", "rounds": 2, "seed": 3, "device": "cpu", "coherence_floor": 100.0, "out": "runs",
    "vector": {"contexts": 4, "layers": [0.4, 0.8]},
    "generate": {"prompts": 8, "max_new_tokens": 8},
    "walk": {"start": 0.2, "doses": 2, "survival": 0.3, "passes": 1, "floor": 0.02, "ceiling": 0.4},
    "filter": {"checks": ["nll", "repeat_words"], "quantile": 1.0, "keep": 4, "calibration": 8, "least": 2},
    "heal": {"rank": 2, "alpha": 4.0, "epochs": 1, "lr": 4e-3, "batch": 2, "anchor": 0.1, "lam": 0.1, "anchor_prompts": 4, "anchor_tokens": 6},
    "eval": {"instruments": ["neutral", "probes", "samples"], "probes": 4, "transfer": "full", "neutral_prompts": 4, "sample_prompts": 2, "sample_tokens": 6, "resamples": 20},
}  # fmt: skip
METHODS = ("healed_round", "sft", "steering")
OF_THE_CLOCK = re.compile(r'"(?:seconds|peak_memory_gb)": (?:\{[^{}]*\}|[0-9.e+-]+|null),?')
"""what differs between two unbroken runs as well"""
PASSED_OVER = {"events.jsonl", "report.html", "compare.html", ".lock"}
"""logs and pages, which hold times and the folder's own name"""


def job(kind: str, resume: Path | None) -> None:
    """One sitting, in this process."""
    torch.set_num_threads(1)
    tok = build_tokenizer()
    models.load = lambda _name, **_how: (build_model(len(tok), tok.eos_token_id), tok)
    if kind == "compare":
        settings = {k: v for k, v in SETTINGS.items() if k != "out"}
        compare.run(
            out="runs", seeds=1, methods=METHODS, grid=Grid(scales=(0.5, 1.0), doses=(0.5, 1.0)), **settings
        )
    elif resume:
        loop.run(resume=resume)
    else:
        loop.run(**SETTINGS)


def sitting(home: Path, kind: str, resume: Path | None, kill_after: float | None) -> int | None:
    """The status of a forked process that works in `home`; None where it was killed."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.chdir(home)
            os.dup2(os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
            os.dup2(1, 2)
            job(kind, resume)
            status = 0
        except BaseException:  # the parent must never return from here twice
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)


def case(told: tuple[str, int, Path, float]) -> dict[str, Any]:
    """One killed run, resumed to its end, and how it differs from the unbroken one at `right`."""
    kind, seed, right, seconds = told
    draw = random.Random(seed)
    kills = [draw.uniform(0, seconds) for _ in range(1 + (draw.random() < 1 / 3))]
    home = Path(tempfile.mkdtemp(prefix=f"kill-{seed}-"))
    found: dict[str, Any] = {"kind": kind, "seed": seed, "at": [round(k / seconds, 3) for k in kills]}
    for kill in [*kills, None]:
        status = sitting(home, kind, begun(home) if kind == "run" else None, kill)
        if status not in (None, 0):
            return found | {"lost": f"exit {status}", "said": (home / "said.txt").read_text()[-2000:], "home": str(home)}  # fmt: skip
    different = differing(newest(home), right)
    if different:
        return found | {"lost": "differs", "files": different, "home": str(home)}
    shutil.rmtree(home)
    return found


def begun(home: Path) -> Path | None:
    """The run folder that a killed process left, if it had written its settings."""
    runs = sorted(p for p in (home / "runs").glob("*") if (p / "config.toml").is_file())
    return runs[0] if runs else None


def newest(home: Path) -> Path:
    """The folder to compare: the comparison's, or the one run in it that has a manifest."""
    runs = [p for p in (home / "runs").iterdir() if (p / "manifest.json").is_file()]
    return runs[0] if len(runs) == 1 else home / "runs"


def differing(ours: Path, right: Path) -> list[str]:
    """Files that differ, or that only one has; and logs that name other steps."""
    names = {str(p.relative_to(root)) for root in (ours, right) for p in root.rglob("*") if p.is_file()}
    kept = sorted(n for n in names if Path(n).name not in PASSED_OVER)
    files = [n for n in kept if content(ours / n) != content(right / n)]
    logs = [n for n in sorted(names) if Path(n).name == "events.jsonl" and steps(ours / n) != steps(right / n)]  # fmt: skip
    return files + logs


def content(file: Path) -> bytes | str | None:
    if not file.is_file():
        return None
    return OF_THE_CLOCK.sub("", file.read_text()) if file.suffix == ".json" else file.read_bytes()


def steps(log: Path) -> dict[str, Any]:
    """Every finished step with its files' hashes."""
    out: dict[str, Any] = {}
    for line in log.read_text().split("\n") if log.is_file() else ():
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue
        if event["event"] == "done":
            out[event["file"]] = event["files"]
    return out


def unbroken(kind: str) -> tuple[Path, float]:
    """A run that nobody kills, and its seconds; a second one first, so that what is loaded late is loaded."""
    home, began = Path(tempfile.mkdtemp(prefix="unbroken-")), time.monotonic()
    if sitting(home, kind, None, None) != 0:
        sys.exit((home / "said.txt").read_text()[-4000:])
    return newest(home), time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=0, help="kills of a run")
    parser.add_argument("--compare", type=int, default=0, help="kills of a comparison")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a JSON file for every case")
    given = parser.parse_args()
    found: list[dict[str, Any]] = []
    for kind, number in (("run", given.runs), ("compare", given.compare)):
        if not number:
            continue
        right, seconds = unbroken(kind)
        cases = [(kind, seed, right, seconds) for seed in range(given.first, given.first + number)]
        with multiprocessing.get_context("fork").Pool(given.workers) as pool:
            for one in pool.imap_unordered(case, cases):
                found.append(one)
                if "lost" in one:
                    print(json.dumps(one, indent=1), flush=True)
        lost = sum("lost" in one for one in found if one["kind"] == kind)
        twice = sum(len(one["at"]) > 1 for one in found if one["kind"] == kind)
        print(f"{kind}: {number} killed ({twice} of them twice), {lost} lost; unbroken in {seconds:.1f} s", flush=True)  # fmt: skip
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(any("lost" in one for one in found))


if __name__ == "__main__":
    main()
