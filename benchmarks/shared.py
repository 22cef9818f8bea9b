"""What the benchmarks of steering share: sizes, arguments, a pool of processes that a limit ends, tables' numbers.

In: a benchmark's jobs and what does one. Out: the rows that lie in its file, and text of what each job ended with.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing as mp
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from steer_heal_love.config import Grid, RunConfig
from steer_heal_love.ground.overrides import override
from steer_heal_love.ground.stats import crossed, t_quantile
from steer_heal_love.nouns import Score

Row = dict[str, Any]
WHOLE: Row = {
    "vector": {"contexts": 64},
    "generate": {"prompts": 24, "max_new_tokens": 48, "batch": 192},
    "filter": {"calibration": 64},
    "eval": {"probes": 48, "third_answers": False},
    "batch_tokens": 32768,
    "heal": {"micro_batch": 6},
}
SMALL: Row = {
    "vector": {"contexts": 6},
    "generate": {"prompts": 4, "max_new_tokens": 6},
    "filter": {"calibration": 8, "least": 1, "keep": 4},
    "eval": {
        "probes": 4,
        "third_answers": False,
        "neutral_prompts": 4,
        "sample_prompts": 2,
        "sample_tokens": 6,
    },
    "heal": {"rank": 2, "epochs": 1, "anchor_prompts": 4, "anchor_tokens": 6},
    "walk": {"doses": 2, "passes": 1},
}
"""a dry run"""
HEALED: Row = {
    "instruments": ["neutral", "probes", "samples"],
    "wordings": False,
    "nulls": False,
    "transfer": "off",
    "base_draws": 1,
    "healed_draws": 1,
}
"""what is measured of a healed round"""
GRID = Grid(scales=(0.5, 1.0))
HALF_LIFE, CAP, REWINDS = 24.0, 1.0, 2
"""of the adaptive modes: tokens, nats, times"""
PASSES = 3
"""batched passes in which a dose is found"""


class Late(Exception):
    """There is no time left to begin anything."""


def arguments(about: str | None, parts: Sequence[str], out: str, threads: int) -> argparse.ArgumentParser:
    """The options of both benchmarks; `out` says what `--out` is."""
    args = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--out", type=Path, required=True, help=out)
    args.add_argument("--personas", nargs="+", default=["love", "joy"])
    args.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args.add_argument("--nats", nargs="+", type=float, default=[1.0, 2.0], help="rising")
    args.add_argument("--parts", nargs="+", choices=list(parts), default=list(parts))
    args.add_argument("--workers", type=int, default=1)
    args.add_argument("--threads", type=int, default=threads, help="of each worker")
    args.add_argument("--limit", type=float, default=math.inf, help="seconds after which nothing new begins")
    args.add_argument(
        "--grace", type=float, default=15.0, help="seconds after that until what runs is cut off"
    )
    args.add_argument("--model", default="smollm2")
    args.add_argument("--template", default="", help="chat template, as of shl run")
    args.add_argument("--device", default="auto")
    args.add_argument("--small", action="store_true", help="a dry run")
    args.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of a run, such as eval.probes=24"
    )
    args.add_argument("--collect", action="store_true", help="only read what lies there")
    return args


def parsed(args: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """The options, with `start`: when the whole began, by the clock that all processes share."""
    a = args.parse_args(argv)
    a.start = time.time()
    return a


def settings(a: argparse.Namespace, seed: int, **more: Any) -> RunConfig:
    """The settings of one seed. Raises `UserError` for a `--set` that is none."""
    told = {"model": a.model, "template": a.template, "device": a.device, "seed": seed, **more}
    return override(override(RunConfig(), (SMALL if a.small else WHOLE) | told), nested(a.set))


def nested(pairs: Iterable[str]) -> Row:
    """`ROOM.NAME=VALUE`s as a table of tables; a value that is no JSON is a text."""
    out: Row = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        *rooms, key = name.split(".")
        at = out
        for room in rooms:
            at = at.setdefault(room, {})
        try:
            at[key] = json.loads(text)
        except json.JSONDecodeError:
            at[key] = text
    return out


def left(a: argparse.Namespace) -> float:
    """Seconds until nothing new begins."""
    return float(a.limit - (time.time() - a.start))


def in_time(a: argparse.Namespace, least: float = 0.0) -> None:
    """Raise `Late` where there are not even `least` seconds left; never without a limit."""
    if a.limit < math.inf and left(a) <= least:
        raise Late


def measured(
    a: argparse.Namespace, work: Callable[[Any], str], jobs: Sequence[Any], *, each: bool = False
) -> None:
    """Do every job, in this process with one worker; what it ended with is printed. `each`: a process for each job."""
    if a.workers == 1:
        for job in jobs:
            print(work(job), flush=True)
        return
    # Spawned: CUDA and OpenMP don't survive a fork.
    with mp.get_context("spawn").Pool(
        min(a.workers, len(jobs)), maxtasksperchild=1 if each else None
    ) as pool:
        waiting = [pool.apply_async(work, (job,)) for job in jobs]
        for w in waiting:
            try:
                print(w.get(None if a.limit == math.inf else max(left(a) + a.grace, 0.1)), flush=True)
            except mp.TimeoutError:
                print("cut off by the limit; what was done lies in the file", flush=True)


def threads(a: argparse.Namespace) -> None:
    torch.set_num_threads(a.threads)


def rows(file: Path) -> list[Row]:
    """Every whole line that lies there; one that a killed process was writing is left out."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def over_seeds(each: list[list[float]]) -> Score:
    """Items crossed with seeds."""
    return crossed(each, resamples=1000)


def by_seed(each: list[float]) -> Score:
    """One number a seed: mean and Student's t interval. Three values are too few to resample."""
    x = [v for v in each if math.isfinite(v)]
    if len(x) < 2:
        return Score(x[0], math.nan, math.nan, 1) if x else Score.undefined()
    mean, half = statistics.fmean(x), t_quantile(0.975, len(x) - 1) * statistics.stdev(x) / math.sqrt(len(x))
    return Score(mean, mean - half, mean + half, len(x))


def formatted(score: Row, digits: int = 3) -> str:
    """A mean with its interval."""
    if score["mean"] is None:
        return "–"
    ends = "" if score["lo"] is None else f" [{score['lo']:.{digits}f}, {score['hi']:.{digits}f}]"
    return f"{score['mean']:.{digits}f}{ends}"
