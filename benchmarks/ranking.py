"""What `benchmarks/steering.py` left open: newer steering methods at equal nats, curves over layers, and heals of their text.

    PYTHONPATH=src python3 benchmarks/ranking.py --personas love joy --seeds 0 1 2 --workers 6 --limit 440 --out ranking.jsonl

*rank.* Each method and hook point of `CELLS` at the doses where the 95th percentile of per-token KL(steered‖unsteered) is each
of `--nats`: the trait's shift on held-out probes, paired with the base, and the share of own text that passes every check.
*heal.* One round on each method of `HEALS`, its text written at the first of `--nats`, at half and at the whole update.
*text.* One round on `mean_diff` at the last of `--nats`, its text written plainly and with steering that adapts.
*curve.* `shl vector sweep`'s bands of layers for each method of `CURVES` at the first of `--nats`.

A line of JSON is written as each cell is done. A second call with the same file leaves out what lies there, and nothing new
begins once `--limit` seconds have passed. `--collect` only reads the file and prints the tables. Intervals are 95%: probes
crossed with seeds; shares pool the texts of all seeds. A difference is paired by probe and seed.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing as mp
import os
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from steering import CAP, GRID, HALF_LIFE, HEALED, PASSES, REWINDS, SMALL, WHOLE, told

from steer_heal_love import sweep as room
from steer_heal_love.compare import study
from steer_heal_love.config import RunConfig
from steer_heal_love.ground import models, records
from steer_heal_love.ground.banks import bank
from steer_heal_love.ground.overrides import override
from steer_heal_love.ground.progress import silent
from steer_heal_love.ground.stats import bootstrap, crossed, proportion
from steer_heal_love.nouns import Score
from steer_heal_love.persona import load as load_persona
from steer_heal_love.session import loaded
from steer_heal_love.sweep.bed import Bed, laid
from steer_heal_love.sweep.contexts import poles
from steer_heal_love.vector.iso_kl import iso_kl

DOWN, OUT = "mlp.down_proj", "self_attn.o_proj"
CELLS = (
    ("mean_diff", ""), ("linear_act", ""), ("writer_svd", ""), ("writer_svd_pooled", ""), ("random", ""), ("unrelated", ""),
    ("mean_diff", DOWN), ("linear_act", DOWN), ("mean_diff", OUT), ("linear_act", OUT),
)  # fmt: skip
"""methods with the linear module at whose output they act; the residual stream where it is empty"""
HEALS = (
    ("mean_diff", ""), ("linear_act", ""), ("writer_svd", ""), ("writer_svd_pooled", ""), ("mean_diff", DOWN), ("unrelated", ""),
)  # fmt: skip
TEXTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rewind": {"rewinds": REWINDS},
    "decay, cap, rewind": {"half_life": HALF_LIFE, "cap_nats": CAP, "rewinds": REWINDS},
}
"""how the text adapts, as settings of `adapt`"""
CURVES = ("mean_diff", "linear_act", "writer_svd")
LEAST_LEFT = {"rank": 5.0, "curve": 5.0, "heal": 40.0, "text": 40.0}
"""seconds that must be left for a cell to begin"""

Row = dict[str, Any]
_model: list[Any] = []
"""this process's model and tokenizer"""


class Late(Exception):
    """There is no time left to begin anything."""


class Job:
    """One part for one persona and one seed: what is done already, the time that is left, where rows go."""

    def __init__(self, a: argparse.Namespace, part: str, persona: str, seed: int) -> None:
        self.a, self.part, self.persona, self.seed = a, part, persona, seed
        told = {"persona": persona, "model": a.model, "device": a.device, "seed": seed}
        self.config = override(RunConfig(), (SMALL if a.small else WHOLE) | told)
        self.done = {r["cell"] for r in read(a.out) if self.mine(r)}
        if not _model:
            _model.extend(loaded(self.config))
        self.model, self.tok = _model

    def mine(self, row: Row) -> bool:
        return (row["part"], row["persona"], row["seed"]) == (self.part, self.persona, self.seed)

    def wanted(self, cell: str) -> bool:
        """Whether a cell is still to be made. Raises `Late` where it is and there is no time for it."""
        if cell in self.done:
            return False
        if self.a.limit - (time.time() - self.a.start) <= LEAST_LEFT[self.part] * (self.a.limit < math.inf):
            raise Late
        return True

    def note(self, cell: str, **row: Any) -> None:
        line = {"part": self.part, "persona": self.persona, "seed": self.seed, "cell": cell,
                "device": records.device_name(self.model.device), "model": self.a.model, **row}  # fmt: skip
        with os.fdopen(os.open(self.a.out, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "wb", buffering=0) as f:
            f.write((json.dumps(records.plain(line)) + "\n").encode())

    def bed(self, bands: tuple[tuple[float, float], ...]) -> Bed:
        texts = random.Random(self.seed).sample(bank("contexts"), self.config.vector.contexts)
        at = room.layers_of(self.model, bands)
        return laid(self.model, self.tok, load_persona(self.persona), self.config, at, contexts=texts)


def name_of(method: str, hook: str) -> str:
    return f"{method} at {hook}" if hook else method


def at_hook(bed: Bed, hook: str) -> Bed:
    """The same bed with the poles' states at another place."""
    cfg = override(bed.config, {"vector": {"hook": hook}})
    pos, neg = poles(bed.model, bed.tok, bed.persona, cfg, sorted(bed.pos), contexts=bed.contexts, hook=hook)
    return replace(bed, config=cfg, pos=pos, neg=neg)


def rank(job: Job) -> None:
    todo = [(m, h) for m, h in CELLS if job.wanted(name_of(m, h))]
    band = job.config.vector.layers
    bed = job.bed((band,)) if todo else None
    beds: dict[str, Bed] = {}
    for method, hook in todo:
        assert bed is not None
        job.wanted(name_of(method, hook))
        if hook not in beds:
            beds[hook] = at_hook(bed, hook) if hook else bed
        measured(job, beds[hook], name_of(method, hook), method, band, job.a.nats)


def measured(
    job: Job, bed: Bed, cell: str, method: str, band: tuple[float, float], nats: list[float]
) -> None:
    start = time.perf_counter()
    steering = bed.steering(method, models.band(bed.model, band))
    doses = iso_kl(bed.model, steering, nats, bed.trials, passes=PASSES)
    found = [asdict(bed.measured(method, band, steering, dose)) for dose in doses]
    base = [float(c.coherent) for c in bed.own]
    job.note(cell, cells=found, base_coherent=base, seconds=time.perf_counter() - start)


def curve(job: Job) -> None:
    todo = [(m, b) for m in CURVES for b in room.BANDS if job.wanted(f"{m} {b[0]:g}-{b[1]:g}")]
    bed = job.bed(room.BANDS) if todo else None
    for method, band in todo:
        assert bed is not None
        job.wanted(cell := f"{method} {band[0]:g}-{band[1]:g}")
        measured(job, bed, cell, method, band, job.a.nats[:1])


def heal(job: Job) -> None:
    for method, hook in HEALS:
        if job.wanted(cell := name_of(method, hook)):
            settings = {"vector": {"hook": hook}, "walk": {"kind": "iso_kl", "nats": job.a.nats[0]}}
            healed(job, cell, method, settings)


def text(job: Job) -> None:
    for mode, adapt in TEXTS.items():
        if job.wanted(mode):
            healed(
                job, mode, "mean_diff", {"adapt": adapt, "walk": {"kind": "iso_kl", "nats": job.a.nats[-1]}}
            )


def healed(job: Job, cell: str, method: str, settings: dict[str, Any]) -> None:
    """One round on a method's vector, in a folder that is gone afterwards; the base's scores are kept by the tool's shelf."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="ranking-") as out:
        cfg = override(job.config, {"out": out, "eval": HEALED, **settings})
        base, (trace,) = study.of_seed(
            cfg, job.model, job.tok, [study.named(f"healed:{method}")], GRID, silent
        )
        stages = [
            {"scale": scale, "scores": s.scores, "trait": s.items["trait"], "base_trait": base.items["trait"]}
            for scale, s in trace.cells
        ]
    job.note(cell, stages=stages, stopped=trace.stopped, seconds=time.perf_counter() - start)


PARTS = {"rank": rank, "heal": heal, "text": text, "curve": curve}


def work(job: tuple[argparse.Namespace, str, str, int]) -> str:
    """One job; what it ended with."""
    a, part, persona, seed = job
    torch.set_num_threads(a.threads)
    start = time.perf_counter()
    try:
        PARTS[part](Job(a, part, persona, seed))
    except Late:
        return f"{part} {persona} {seed}: no time left"
    return f"{part} {persona} {seed}: {time.perf_counter() - start:.0f} s"


def jobs(a: argparse.Namespace) -> Iterator[tuple[argparse.Namespace, str, str, int]]:
    """A part of all personas and seeds before the next part."""
    for part in a.parts:
        for seed in a.seeds:
            for persona in a.personas:
                yield a, part, persona, seed


def measure(a: argparse.Namespace) -> None:
    if a.workers == 1:
        for job in jobs(a):
            print(work(job), flush=True)
        return
    # Spawned: CUDA and OpenMP don't survive a fork.
    with mp.get_context("spawn").Pool(a.workers) as pool:
        waiting = [pool.apply_async(work, (job,)) for job in jobs(a)]
        for w in waiting:
            left = None if a.limit == math.inf else max(a.limit + a.grace - (time.time() - a.start), 0.1)
            try:
                print(w.get(left), flush=True)
            except mp.TimeoutError:
                print("cut off by the limit; what was done lies in the file", flush=True)


def read(out: Path) -> list[Row]:
    """Every whole line that lies there; one that a killed process was writing is left out."""
    lines = out.read_text(encoding="utf-8").splitlines() if out.is_file() else []
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def over_seeds(each: list[list[float]]) -> Score:
    return crossed(each, resamples=1000)


def less(mine: dict[int, list[float]], theirs: dict[int, list[float]]) -> Score:
    """Mean difference, paired by probe in the seeds that both have."""
    shared = sorted(mine.keys() & theirs.keys())
    if not shared:
        return Score.undefined()
    return over_seeds([[x - y for x, y in zip(mine[s], theirs[s], strict=True)] for s in shared])


Values = dict[tuple[Any, ...], dict[str, dict[int, list[float]]]]
"""by group and cell, each seed's values by probe"""


def steered(rows: list[Row], part: str) -> list[Row]:
    """Tables of the parts that steer: trait, trait per nat and its difference from the first cell of its group."""
    found: dict[tuple[str, float, str], list[tuple[int, Row, Row]]] = defaultdict(list)
    for r in rows:
        for c in r["cells"] if r["part"] == part else ():
            found[r["persona"], c["dose"]["nats"], r["cell"]].append((r["seed"], c, r))
    per_nat = {
        key: {s: [x / c["dose"]["kl_nats"] for x in c["shifts"]] for s, c, _ in of}
        for key, of in found.items()
    }
    out = []
    for (persona, nats, cell), of in sorted(found.items(), key=lambda f: f[0][:2]):
        default = "mean_diff 0.3-0.7" if part == "curve" else "mean_diff"
        out.append({
            "part": part, "persona": persona, "nats": nats, "cell": cell, "seeds": len(of),
            "kl_nats": [c["dose"]["kl_nats"] for _, c, _ in of], "doses": [c["dose"]["dose"] for _, c, _ in of],
            "trait": over_seeds([c["shifts"] for _, c, _ in of]),
            "per_nat": over_seeds(list(per_nat[persona, nats, cell].values())),
            "less": less(per_nat[persona, nats, cell], per_nat.get((persona, nats, default), {})),
            "coherent": proportion([v for _, c, _ in of for v in c["passed"]]),
            "kept": proportion([v for _, c, _ in of for v in c["on_trait"]]),
        })  # fmt: skip
    return out


def baked(rows: list[Row], part: str) -> list[Row]:
    """Tables of the parts that heal, and whatever stopped a round."""
    found: dict[tuple[str, float, str], dict[int, Row]] = defaultdict(dict)
    for r in rows:
        for s in r["stages"] if r["part"] == part else ():
            found[r["persona"], s["scale"], r["cell"]][r["seed"]] = s
    moved = {
        key: {
            seed: [x - y for x, y in zip(s["trait"], s["base_trait"], strict=True)] for seed, s in of.items()
        }
        for key, of in found.items()
    }
    out = []
    for (persona, scale, cell), of in sorted(found.items(), key=lambda f: f[0][:2]):
        mine = moved[persona, scale, cell]
        means = {s: bootstrap([x["scores"][s]["mean"] for x in of.values() if x["scores"].get(s)], resamples=1000)
                 for s in ("neutral_kl", "own_excess")}  # fmt: skip
        row = {"part": part, "persona": persona, "scale": scale, "cell": cell, "seeds": len(of)}
        first = "plain" if part == "text" else "mean_diff"
        out.append(row | {"trait": over_seeds(list(mine.values())),
                          "less": less(mine, moved.get((persona, scale, first), {})), **means})  # fmt: skip
    return out


def summary(rows: list[Row]) -> Row:
    """Every table, JSON-ready."""
    own: dict[tuple[str, int], list[float]] = {
        (r["persona"], r["seed"]): r["base_coherent"] for r in rows if "base_coherent" in r
    }
    people = sorted({p for p, _ in own})
    return records.plain({  # type: ignore[no-any-return]
        "machines": sorted({r["device"] for r in rows}),
        "base_coherent": {p: proportion([v for (q, _), of in own.items() if q == p for v in of]) for p in people},
        "steered": steered(rows, "rank") + steered(rows, "curve"), "healed": baked(rows, "heal") + baked(rows, "text"),
        "stopped": [{k: r[k] for k in ("part", "persona", "seed", "cell", "stopped")} for r in rows if r.get("stopped")],
    })  # fmt: skip


def show(found: Row) -> None:
    """The tables as text. `less`: the difference from `mean_diff` (in its default band), or from plain text."""
    base = ", ".join(f"{p} {told(s, 2)}" for p, s in found["base_coherent"].items())
    print(f"{', '.join(found['machines'])}; base coherent: {base}")
    for r in found["steered"]:
        kl = ", ".join(f"{v:.2f}" for v in r["kl_nats"])
        print(f"{r['part']:<5} {r['persona']:<6} {r['nats']:g} nats ({kl}) {r['cell']:<30} trait {told(r['trait'])} "
              f"per nat {told(r['per_nat'])} less {told(r['less'])} coherent {told(r['coherent'], 2)} "
              f"kept {told(r['kept'], 2)}")  # fmt: skip
    for r in found["healed"]:
        print(f"{r['part']:<5} {r['persona']:<6} scale {r['scale']:g} {r['cell']:<30} trait {told(r['trait'])} "
              f"less {told(r['less'])} neutral_kl {told(r['neutral_kl'], 4)} own_excess {told(r['own_excess'])} "
              f"seeds {r['seeds']}")  # fmt: skip
    for r in found["stopped"]:
        print(f"{r['part']} {r['persona']} {r['cell']} seed {r['seed']}: {r['stopped']}")


def main(argv: list[str] | None = None) -> Row:
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--out", type=Path, required=True, help="a file of JSON lines")
    args.add_argument("--personas", nargs="+", default=["love", "joy"])
    args.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args.add_argument("--nats", nargs="+", type=float, default=[1.0, 2.0], help="rising")
    args.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    args.add_argument("--workers", type=int, default=1)
    args.add_argument("--threads", type=int, default=2, help="of each worker")
    args.add_argument("--limit", type=float, default=math.inf, help="seconds after which nothing new begins")
    args.add_argument("--grace", type=float, default=15.0, help="seconds after that until work is cut off")
    args.add_argument("--model", default="smollm2")
    args.add_argument("--device", default="auto")
    args.add_argument("--small", action="store_true", help="a dry run")
    args.add_argument("--collect", action="store_true", help="only read what lies there")
    a = args.parse_args(argv)
    a.start = time.time()
    a.out.parent.mkdir(parents=True, exist_ok=True)
    if not a.collect:
        measure(a)
    found = summary(read(a.out))
    show(found)
    return found


if __name__ == "__main__":
    main()
