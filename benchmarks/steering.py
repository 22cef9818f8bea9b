"""Which steering is worth its divergence: directions and operations at equal nats, adaptive modes by yield, healed rounds.

    PYTHONPATH=src python3 benchmarks/steering.py --personas love joy --seeds 0 1 2 --workers 3 --limit 430 --out steering

*Ranking.* Every direction with every operation, at the doses where the 95th percentile of per-token KL(steered‖unsteered)
is each of `--nats`: the trait's shift on held-out probes, paired with the base, and the share of own text that passes the
checks of coherence. A random direction and an unrelated persona's are controls. A seed draws its contexts, prompts and text.

*Yield.* Tokens of texts that pass every check, the trait's among them, a second and a token that the model read; plain
steering and the filter against each adaptive mode. Processes that share a device slow each other down, all modes alike.

*Healed.* One round on each method's vector, its text written at the first of `--nats`, as `shl compare` measures it.

Each seed is a process with a model of its own. What is done is written as it is done, and nothing new begins once `--limit`
seconds have passed; `--collect` only reads what lies there. Intervals: probes crossed with seeds; shares pooled.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing as mp
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from steer_heal_love.compare import study
from steer_heal_love.config import Grid, RunConfig
from steer_heal_love.ground import models, records
from steer_heal_love.ground.adaptive import Policy, band, written
from steer_heal_love.ground.banks import bank
from steer_heal_love.ground.chat import prompt_ids
from steer_heal_love.ground.operations import Steering, operations
from steer_heal_love.ground.overrides import override
from steer_heal_love.ground.progress import silent
from steer_heal_love.ground.scoring import token_nll
from steer_heal_love.ground.stats import bootstrap, crossed, proportion
from steer_heal_love.nouns import Completion, Score, Tokens
from steer_heal_love.persona import load as load_persona
from steer_heal_love.persona import names as persona_names
from steer_heal_love.persona import training_prompts
from steer_heal_love.session import loaded
from steer_heal_love.sweep import applied
from steer_heal_love.sweep.bed import Bed, laid
from steer_heal_love.sweep.contexts import poles
from steer_heal_love.vector import Vector, methods
from steer_heal_love.vector.controls import random_like
from steer_heal_love.vector.iso_kl import IsoDose, iso_kl

WHOLE = {
    "vector": {"contexts": 64}, "generate": {"prompts": 24, "max_new_tokens": 48, "batch": 192},
    "filter": {"calibration": 64}, "eval": {"probes": 48, "third_answers": False}, "batch_tokens": 32768, "heal": {"micro_batch": 6},
}  # fmt: skip
SMALL = {
    "vector": {"contexts": 6}, "generate": {"prompts": 4, "max_new_tokens": 6}, "filter": {"calibration": 8, "least": 1, "keep": 4},
    "eval": {"probes": 4, "third_answers": False, "neutral_prompts": 4, "sample_prompts": 2, "sample_tokens": 6},
    "heal": {"rank": 2, "epochs": 1, "anchor_prompts": 4, "anchor_tokens": 6}, "walk": {"doses": 2, "passes": 1},
}  # fmt: skip
"""a dry run"""
HEALED = {
    "instruments": ["neutral", "probes", "samples"], "wordings": False, "nulls": False, "transfer": "off", "base_draws": 1,
    "healed_draws": 1,
}  # fmt: skip
"""what is measured of a healed round"""
GRID = Grid(scales=(0.5, 1.0))
HALF_LIFE, CAP, REWINDS = 24.0, 1.0, 2
"""of the adaptive modes: tokens, nats, times"""
PASSES = 3
"""batched passes in which a dose is found"""
LEAST_LEFT = 45.0
"""seconds that must be left for a healed round to begin"""


class Clock:
    """When the whole began, by the clock that all processes share, and when nothing new begins."""

    def __init__(self, start: float, limit: float) -> None:
        self.start, self.limit = start, limit

    def left(self) -> float:
        return self.limit - (time.time() - self.start)


class Late(Exception):
    """There is no time left to begin anything."""


class Worker:
    """One seed: its model, its beds, what was found, and where it is written."""

    def __init__(self, a: argparse.Namespace, seed: int) -> None:
        self.a, self.seed = a, seed
        self.clock = Clock(a.start, a.limit)
        self.config = settings(a, seed)
        self.model, self.tok = loaded(self.config)
        self.beds: dict[str, Bed] = {}
        self.doses: dict[tuple[str, str, str], list[IsoDose]] = {}
        self.file = a.out / f"seed-{seed}.jsonl"
        self.folder = tempfile.TemporaryDirectory(prefix="steering-")
        self.scratch = Path(self.folder.name)

    def note(self, part: str, persona: str, **row: Any) -> None:
        line = {"part": part, "persona": persona, "seed": self.seed, **row}
        with self.file.open("a", encoding="utf-8") as f:
            f.write(json.dumps(records.plain(line)) + "\n")

    def in_time(self, least: float = 0.0) -> None:
        if self.clock.left() <= least:
            raise Late

    def bed(self, persona: str) -> Bed:
        if persona not in self.beds:
            texts = random.Random(self.seed).sample(bank("contexts"), self.config.vector.contexts)
            cfg, who = replace(self.config, persona=persona), load_persona(persona)
            at = models.band(self.model, cfg.vector.layers)
            self.beds[persona] = laid(self.model, self.tok, who, cfg, at, contexts=texts)
        return self.beds[persona]

    def dosed(self, bed: Bed, name: str, steering: Steering) -> list[IsoDose]:
        """The doses of a direction and an operation at every number of nats, found once."""
        key = bed.persona.name, name, steering.operation
        if key not in self.doses:
            self.doses[key] = iso_kl(self.model, steering, self.a.nats, bed.trials, passes=PASSES)
        return self.doses[key]


def settings(a: argparse.Namespace, seed: int) -> RunConfig:
    return override(
        RunConfig(), (SMALL if a.small else WHOLE) | {"model": a.model, "device": a.device, "seed": seed}
    )


def tries(bed: Bed, w: Worker) -> Iterator[tuple[str, Steering]]:
    """Every direction with every operation that takes it; controls, which are only added, come with the first."""
    at = sorted(bed.pos)
    for operation in sorted(operations, key=lambda name: name != "add"):
        for name in methods:
            if operation in applied(name, [operation]):
                yield name, bed.steering(name, at, operation)
        if operation == "add":
            mean = Vector(dict(bed.steering("mean_diff", at).directions))
            yield "random", Steering(random_like(mean, w.seed).directions)
            yield "unrelated", Steering(unrelated(bed, mean, at).directions)


def unrelated(bed: Bed, mean: Vector, at: list[int]) -> Vector:
    """Of the other personas' vectors the one of least |cosine| with this one's."""
    others = [load_persona(name) for name in persona_names() if name != bed.persona.name]
    read = (poles(bed.model, bed.tok, other, bed.config, at) for other in others)
    vectors = [Vector(methods["mean_diff"](pos, neg)) for pos, neg in read]
    return min(vectors, key=lambda v: abs(v.cosine(mean)))


def ranking(w: Worker, persona: str) -> None:
    bed = w.bed(persona)
    w.note("base", persona, coherent=[float(c.coherent) for c in bed.own], trait=bed.trait)
    for name, steering in tries(bed, w):
        w.in_time()
        start = time.perf_counter()
        for dose in w.dosed(bed, name, steering):
            cell = bed.measured(name, w.config.vector.layers, steering, dose)
            w.note("ranking", persona, seconds_so_far=time.perf_counter() - start, **asdict(cell))


def modes(w: Worker, bed: Bed) -> Iterator[tuple[str, Steering, float, Policy]]:
    """What text is written with: at each number of nats plainly, and at the largest with each way to adapt."""
    at = sorted(bed.pos)
    plain, gated = (bed.steering("mean_diff", at, name) for name in ("add", "gate"))
    doses = w.dosed(bed, "mean_diff", plain)
    top = doses[-1].dose
    nll = token_nll(bed.model, [c.tokens for c in bed.own], batch_tokens=bed.config.batch_tokens)
    inside = band(nll, Policy.window, 0.95)
    for found in doses:
        yield f"plain, {found.nats:g} nats", plain, found.dose, Policy()
    yield "gate", gated, w.dosed(bed, "mean_diff", gated)[-1].dose, Policy()
    yield "decay", plain, top, Policy(half_life=HALF_LIFE)
    yield "cap", plain, top, Policy(cap_nats=CAP)
    yield "rewind", plain, top, Policy(rewinds=REWINDS, band=inside)
    yield "decay, cap, rewind", plain, top, Policy(HALF_LIFE, CAP, REWINDS, band=inside)


def yields(w: Worker, persona: str) -> None:
    bed, cfg = w.bed(persona), w.config.generate
    prompts = training_prompts(bed.persona, 3 * cfg.prompts, seed=w.seed + 100)
    rendered = [prompt_ids(w.tok, p) for p in prompts]
    for name, steering, dose, policy in modes(w, bed):
        w.in_time()
        make = lambda rows, steering=steering, dose=dose, policy=policy: written(
            w.model, rendered[:rows], steering=steering, doses=[dose] * rows, policy=policy, ends=bed.trials.ends,
            max_new_tokens=cfg.max_new_tokens, seed=w.seed, temperature=cfg.temperature, min_p=cfg.min_p, batch=cfg.batch,
        )  # fmt: skip
        timed(lambda make=make: make(4), w.model.device)
        seconds, found = timed(lambda make=make: make(len(rendered)), w.model.device)
        made = [
            Completion(p, Tokens(ids, y), str(w.tok.decode(y, skip_special_tokens=True)), dose, y[-1] in bed.trials.ends)
            for p, ids, y in zip(prompts, rendered, found.answers, strict=True)
        ]  # fmt: skip
        judged = bed.judged(made)
        w.note(
            "yield", persona, mode=name, dose=dose, seconds=seconds, read=found.read, rewinds=sum(found.rewinds),
            tokens=[len(c.tokens.answer) for c in judged], coherent=[float(c.coherent) for c in judged],
            kept=[float(c.kept) for c in judged],
        )  # fmt: skip


def timed(work: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    found = work()
    wait()
    return time.perf_counter() - start, found


def healed(w: Worker, persona: str) -> None:
    cfg = override(w.config, {
        "persona": persona, "out": str(w.scratch / persona), "eval": HEALED,
        "walk": {"kind": "iso_kl", "nats": w.a.nats[0]},
    })  # fmt: skip
    for name in methods:
        w.in_time(LEAST_LEFT if w.a.limit < math.inf else 0.0)
        start = time.perf_counter()
        base, (trace,) = study.of_seed(cfg, w.model, w.tok, [study.named(f"healed:{name}")], GRID, silent)
        for scale, stage in trace.cells:
            w.note(
                "healed", persona, method=name, scale=scale, scores=stage.scores, trait=stage.items["trait"],
                base_trait=base.items["trait"], seconds=time.perf_counter() - start,
            )  # fmt: skip
        if trace.stopped:
            w.note("stopped", persona, method=name, reason=trace.stopped)


PARTS: dict[str, Callable[[Worker, str], None]] = {"ranking": ranking, "yield": yields, "healed": healed}


def work(job: tuple[argparse.Namespace, int]) -> str:
    """Every part of one seed, each for all personas before the next; what it ended with."""
    a, seed = job
    torch.set_num_threads(a.threads)
    w = Worker(a, seed)
    w.note(
        "machine", "", device=records.device_name(w.model.device), model=a.model, loaded=time.time() - a.start
    )
    try:
        for part in a.parts:
            for persona in a.personas:
                start = time.perf_counter()
                PARTS[part](w, persona)
                w.note("done", persona, what=part, seconds=time.perf_counter() - start)
    except Late:
        return f"seed {seed}: no time left"
    return f"seed {seed}: done"


def read(out: Path) -> list[dict[str, Any]]:
    """Every whole line that lies there; one that a killed process was writing is left out."""
    rows = []
    for file in sorted(out.glob("seed-*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.endswith("}"):
                rows.append(json.loads(line))
    return rows


def grouped(
    rows: list[dict[str, Any]], part: str, key: Callable[[dict[str, Any]], Any]
) -> dict[Any, list[dict[str, Any]]]:
    out: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["part"] == part:
            out[key(row)].append(row)
    return out


def over_seeds(values: list[list[float]]) -> Score:
    """Items crossed with seeds."""
    return crossed(values, resamples=1000)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The three tables, JSON-ready; within each persona the most trait a nat first."""
    ranked = []
    for (persona, nats, name, operation), cells in grouped(
        rows, "ranking", lambda r: (r["persona"], r["dose"]["nats"], r["method"], r["operation"])
    ).items():
        per_nat = [[s / c["dose"]["kl_nats"] for s in c["shifts"]] for c in cells]
        ranked.append({
            "persona": persona, "nats": nats, "method": name, "operation": operation, "seeds": len(cells),
            "doses": [c["dose"]["dose"] for c in cells], "kl_nats": [c["dose"]["kl_nats"] for c in cells],
            "kl_tokens": [c["dose"]["n"] for c in cells],
            "trait": over_seeds([c["shifts"] for c in cells]), "per_nat": over_seeds(per_nat),
            "coherent": proportion([v for c in cells for v in c["passed"]]),
            "kept": proportion([v for c in cells for v in c["on_trait"]]),
        })  # fmt: skip
    ranked.sort(key=lambda r: (r["persona"], r["nats"], -r["trait"].mean))
    made = []
    for (persona, mode), cells in grouped(rows, "yield", lambda r: (r["persona"], r["mode"])).items():
        good = [sum(n * k for n, k in zip(c["tokens"], c["kept"], strict=True)) for c in cells]
        made.append({
            "persona": persona, "mode": mode, "seeds": len(cells), "rewinds": sum(c["rewinds"] for c in cells),
            "kept_tokens_per_second": bootstrap([g / c["seconds"] for g, c in zip(good, cells, strict=True)], resamples=1000),
            "kept_tokens_per_read_token": bootstrap([g / c["read"] for g, c in zip(good, cells, strict=True)], resamples=1000),
            "coherent": proportion([v for c in cells for v in c["coherent"]]),
            "kept": proportion([v for c in cells for v in c["kept"]]),
        })  # fmt: skip
    baked = []
    for (persona, name, scale), cells in grouped(
        rows, "healed", lambda r: (r["persona"], r["method"], r["scale"])
    ).items():
        shifts = [[x - y for x, y in zip(c["trait"], c["base_trait"], strict=True)] for c in cells]
        each = {s: bootstrap([c["scores"][s]["mean"] for c in cells if c["scores"].get(s)], resamples=1000)
                for s in ("neutral_kl", "own_excess")}  # fmt: skip
        baked.append(
            {
                "persona": persona,
                "method": name,
                "scale": scale,
                "seeds": len(cells),
                "trait": over_seeds(shifts),
            }
            | each
        )
    baked.sort(key=lambda r: (r["persona"], r["scale"], -r["trait"].mean))
    base = {p: proportion([v for r in of for v in r["coherent"]])
            for p, of in grouped(rows, "base", lambda r: r["persona"]).items()}  # fmt: skip
    parts = [{k: r[k] for k in ("persona", "seed", "what", "seconds")} for r in rows if r["part"] == "done"]
    stopped = [r for r in rows if r["part"] == "stopped"]
    machines = sorted({r["device"] for r in rows if r["part"] == "machine"})
    return records.plain({  # type: ignore[no-any-return]
        "machines": machines, "base_coherent": base, "ranking": ranked, "yield": made, "healed": baked, "stopped": stopped,
        "done": parts,
    })  # fmt: skip


def told(score: dict[str, Any], digits: int = 3) -> str:
    if score["mean"] is None:
        return "–"
    ends = "" if score["lo"] is None else f" [{score['lo']:.{digits}f}, {score['hi']:.{digits}f}]"
    return f"{score['mean']:.{digits}f}{ends}"


def show(found: dict[str, Any]) -> None:
    """The tables as text."""
    print(f"{', '.join(found['machines'])}; base coherent: "
          + ", ".join(f"{p} {told(s, 2)}" for p, s in found["base_coherent"].items()))  # fmt: skip
    for r in found["ranking"]:
        kl = ", ".join(f"{v:.2f}" for v in r["kl_nats"])
        print(f"{r['persona']:<6} {r['nats']:g} nats ({kl}) {r['method']:<14} {r['operation']:<9} trait {told(r['trait'])} "
              f"per nat {told(r['per_nat'])} coherent {told(r['coherent'], 2)} kept {told(r['kept'], 2)}")  # fmt: skip
    for r in found["yield"]:
        print(f"{r['persona']:<6} {r['mode']:<20} kept tokens/s {told(r['kept_tokens_per_second'], 1)} "
              f"per token read {told(r['kept_tokens_per_read_token'])} coherent {told(r['coherent'], 2)} "
              f"kept {told(r['kept'], 2)} rewinds {r['rewinds']}")  # fmt: skip
    for r in found["healed"]:
        print(f"{r['persona']:<6} healed {r['method']:<14} scale {r['scale']:g} trait {told(r['trait'])} "
              f"neutral_kl {told(r['neutral_kl'], 4)} own_excess {told(r['own_excess'])}")  # fmt: skip
    for r in found["stopped"]:
        print(f"{r['persona']:<6} healed {r['method']} seed {r['seed']}: {r['reason']}")
    for r in found["done"]:
        print(f"seed {r['seed']} {r['persona']} {r['what']}: {r['seconds']:.0f} s")


def measure(a: argparse.Namespace) -> None:
    """All seeds, a process each; one after another in this process with one worker."""
    jobs = [(a, seed) for seed in a.seeds]
    if a.workers == 1:
        for job in jobs:
            print(work(job), flush=True)
        return
    # Spawned: CUDA and OpenMP don't survive a fork.
    with mp.get_context("spawn").Pool(min(a.workers, len(jobs)), maxtasksperchild=1) as pool:
        waiting = [pool.apply_async(work, (job,)) for job in jobs]
        for w in waiting:
            left = None if a.limit == math.inf else max(a.limit + a.grace - (time.time() - a.start), 0.1)
            try:
                print(w.get(left), flush=True)
            except mp.TimeoutError:
                print("a seed was cut off by the limit; what it had done lies there", flush=True)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--out", type=Path, required=True, help="a folder")
    args.add_argument("--personas", nargs="+", default=["love", "joy"])
    args.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args.add_argument("--nats", nargs="+", type=float, default=[1.0, 2.0], help="rising")
    args.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    args.add_argument("--workers", type=int, default=1)
    args.add_argument("--threads", type=int, default=4, help="of each worker")
    args.add_argument("--limit", type=float, default=math.inf, help="seconds after which nothing new begins")
    args.add_argument(
        "--grace", type=float, default=15.0, help="seconds after that until what runs is cut off"
    )
    args.add_argument("--model", default="smollm2")
    args.add_argument("--device", default="auto")
    args.add_argument("--small", action="store_true", help="a dry run")
    args.add_argument("--collect", action="store_true", help="only read what lies there")
    a = args.parse_args(argv)
    a.start = time.time()
    a.out.mkdir(parents=True, exist_ok=True)
    if not a.collect:
        measure(a)
    found = summary(read(a.out))
    records.write_json(a.out / "steering.json", found)
    show(found)
    return found


if __name__ == "__main__":
    main()
