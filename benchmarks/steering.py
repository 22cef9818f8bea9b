"""Which steering is worth its divergence: directions and operations at equal nats, adaptive modes by yield, healed rounds.

    PYTHONPATH=src python3 benchmarks/steering.py --personas love joy --seeds 0 1 2 --workers 3 --limit 430 --out steering

*Ranking.* Every direction with every operation, at the doses where the 95th percentile of per-token KL(steered‖unsteered)
is each of `--nats`: the trait's shift on held-out probes, paired with the base, and the share of own text that passes the
checks of coherence. A random direction and an unrelated persona's are controls. A seed draws its contexts, prompts and text.

*Yield.* Tokens of texts that pass every check, the trait's among them: a second, a token that the model read, and 10^12
floating-point operations, for plain steering against each adaptive mode. *With the filter* counts its three readings of every
text too, and its seconds. Operations are those of the matrix products, counted from the model's shape (`floors.py`), each
row as read alone. `less`: against plain text at the first of `--nats`, paired by seed. Processes that share a device slow each
other down, all modes alike; operations don't depend on that.

*Healed.* One round on each method's vector, its text written at the first of `--nats`, as `shl compare` measures it.

Each seed is a process with a model of its own. What is done is written as it is done, and nothing new begins once `--limit`
seconds have passed; `--collect` only reads what lies there. Intervals: probes crossed with seeds; shares pooled.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from floors import Counted, timed
from shared import (
    CAP,
    GRID,
    HALF_LIFE,
    HEALED,
    PASSES,
    REWINDS,
    Late,
    Row,
    arguments,
    by_seed,
    formatted,
    in_time,
    measured,
    over_seeds,
    parsed,
    rows,
    settings,
    threads,
)
from yields import filter_flops, grouped, show_yield, yielded

from steer_heal_love.compare import study
from steer_heal_love.ground import models, records
from steer_heal_love.ground.adaptive import written
from steer_heal_love.ground.banks import bank
from steer_heal_love.ground.chat import prompt_ids
from steer_heal_love.ground.operations import Steering, operations
from steer_heal_love.ground.overrides import override
from steer_heal_love.ground.policy import Policy, band
from steer_heal_love.ground.progress import silent
from steer_heal_love.ground.scoring import token_nll
from steer_heal_love.ground.stats import proportion
from steer_heal_love.nouns import Completion, Tokens
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

LEAST_LEFT = 45.0
"""seconds that must be left for a healed round to begin"""


class Worker:
    """One seed: its model, its beds, what was found, and where it is written."""

    def __init__(self, a: argparse.Namespace, seed: int) -> None:
        self.a, self.seed = a, seed
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
    of_others = (poles(bed.model, bed.tok, other, bed.config, at) for other in others)
    vectors = [Vector(methods["mean_diff"](pos, neg)) for pos, neg in of_others]
    return min(vectors, key=lambda v: abs(v.cosine(mean)))


def ranking(w: Worker, persona: str) -> None:
    bed = w.bed(persona)
    w.note("base", persona, coherent=[float(c.coherent) for c in bed.own], trait=bed.trait)
    for name, steering in tries(bed, w):
        in_time(w.a)
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
        in_time(w.a)
        make = lambda rows, steering=steering, dose=dose, policy=policy: written(
            w.model,
            rendered[:rows],
            steering=steering,
            doses=[dose] * rows,
            policy=policy,
            ends=bed.trials.ends,
            max_new_tokens=cfg.max_new_tokens,
            seed=w.seed,
            temperature=cfg.temperature,
            min_p=cfg.min_p,
            batch=cfg.batch,
        )
        timed(lambda make=make: make(4), w.model.device)
        seconds, found = timed(lambda make=make: make(len(rendered)), w.model.device)
        made = [
            Completion(
                p,
                Tokens(ids, y),
                str(w.tok.decode(y, skip_special_tokens=True)),
                dose,
                y[-1] in bed.trials.ends,
            )
            for p, ids, y in zip(prompts, rendered, found.answers, strict=True)
        ]
        filtering, judged = timed(lambda made=made: bed.judged(made), w.model.device)
        shape = Counted.of(w.model)
        flops = shape.flops(read=found.read, pairs=found.pairs, predicted=found.predicted)
        w.note(
            "yield",
            persona,
            mode=name,
            dose=dose,
            seconds=seconds,
            read=found.read,
            flops=flops,
            filter_seconds=filtering,
            filter_flops=filter_flops(bed, made),
            rewinds=sum(found.rewinds),
            tokens=[len(c.tokens.answer) for c in judged],
            coherent=[float(c.coherent) for c in judged],
            kept=[float(c.kept) for c in judged],
        )


def healed(w: Worker, persona: str) -> None:
    cfg = override(
        w.config,
        {
            "persona": persona,
            "out": str(w.scratch / persona),
            "eval": HEALED,
            "walk": {"kind": "iso_kl", "nats": w.a.nats[0]},
        },
    )
    for name in methods:
        in_time(w.a, LEAST_LEFT)
        start = time.perf_counter()
        base, (trace,) = study.of_seed(cfg, w.model, w.tok, [study.named(f"healed:{name}")], GRID, silent)
        for scale, stage in trace.cells:
            w.note(
                "healed",
                persona,
                method=name,
                scale=scale,
                scores=stage.scores,
                trait=stage.items["trait"],
                base_trait=base.items["trait"],
                seconds=time.perf_counter() - start,
            )
        if trace.stopped:
            w.note("stopped", persona, method=name, reason=trace.stopped)


PARTS: dict[str, Callable[[Worker, str], None]] = {"ranking": ranking, "yield": yields, "healed": healed}


def work(job: tuple[argparse.Namespace, int]) -> str:
    """Every part of one seed, each for all personas before the next; what it ended with."""
    a, seed = job
    threads(a)
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


def read(out: Path) -> list[Row]:
    return [row for file in sorted(out.glob("seed-*.jsonl")) for row in rows(file)]


def summary(found: list[Row]) -> dict[str, Any]:
    """The three tables, JSON-ready; within each persona the most trait a nat first."""
    ranked = []
    for (persona, nats, name, operation), cells in grouped(
        found, "ranking", lambda r: (r["persona"], r["dose"]["nats"], r["method"], r["operation"])
    ).items():
        per_nat = [[s / c["dose"]["kl_nats"] for s in c["shifts"]] for c in cells]
        ranked.append(
            {
                "persona": persona,
                "nats": nats,
                "method": name,
                "operation": operation,
                "seeds": len(cells),
                "doses": [c["dose"]["dose"] for c in cells],
                "kl_nats": [c["dose"]["kl_nats"] for c in cells],
                "kl_tokens": [c["dose"]["n"] for c in cells],
                "trait": over_seeds([c["shifts"] for c in cells]),
                "per_nat": over_seeds(per_nat),
                "coherent": proportion([v for c in cells for v in c["passed"]]),
                "kept": proportion([v for c in cells for v in c["on_trait"]]),
            }
        )
    ranked.sort(key=lambda r: (r["persona"], r["nats"], -r["trait"].mean))
    made = yielded(found)
    baked = []
    for (persona, name, scale), cells in grouped(
        found, "healed", lambda r: (r["persona"], r["method"], r["scale"])
    ).items():
        shifts = [[x - y for x, y in zip(c["trait"], c["base_trait"], strict=True)] for c in cells]
        each = {
            s: by_seed([c["scores"][s]["mean"] for c in cells if c["scores"].get(s)])
            for s in ("neutral_kl", "own_excess")
        }
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
    base = {
        p: proportion([v for r in of for v in r["coherent"]])
        for p, of in grouped(found, "base", lambda r: r["persona"]).items()
    }
    parts = [{k: r[k] for k in ("persona", "seed", "what", "seconds")} for r in found if r["part"] == "done"]
    stopped = [r for r in found if r["part"] == "stopped"]
    machines = sorted({r["device"] for r in found if r["part"] == "machine"})
    return records.plain(
        {  # type: ignore[no-any-return]
            "machines": machines,
            "base_coherent": base,
            "ranking": ranked,
            "yield": made,
            "healed": baked,
            "stopped": stopped,
            "done": parts,
        }
    )


def show(found: dict[str, Any]) -> None:
    """The tables as text."""
    print(
        f"{', '.join(found['machines'])}; base coherent: "
        + ", ".join(f"{p} {formatted(s, 2)}" for p, s in found["base_coherent"].items())
    )
    for r in found["ranking"]:
        kl = ", ".join(f"{v:.2f}" for v in r["kl_nats"])
        print(
            f"{r['persona']:<6} {r['nats']:g} nats ({kl}) {r['method']:<14} {r['operation']:<9} trait {formatted(r['trait'])} "
            f"per nat {formatted(r['per_nat'])} coherent {formatted(r['coherent'], 2)} kept {formatted(r['kept'], 2)}"
        )
    show_yield(found["yield"])
    for r in found["healed"]:
        print(
            f"{r['persona']:<6} healed {r['method']:<14} scale {r['scale']:g} trait {formatted(r['trait'])} "
            f"neutral_kl {formatted(r['neutral_kl'], 4)} own_excess {formatted(r['own_excess'])}"
        )
    for r in found["stopped"]:
        print(f"{r['persona']:<6} healed {r['method']} seed {r['seed']}: {r['reason']}")
    for r in found["done"]:
        print(f"seed {r['seed']} {r['persona']} {r['what']}: {r['seconds']:.0f} s")


def main(argv: list[str] | None = None) -> Row:
    a = parsed(arguments(__doc__, list(PARTS), "a folder", threads=4), argv)
    a.out.mkdir(parents=True, exist_ok=True)
    if not a.collect:
        measured(a, work, [(a, seed) for seed in a.seeds], each=True)
    found = summary(read(a.out))
    records.write_json(a.out / "steering.json", found)
    show(found)
    return found


if __name__ == "__main__":
    main()
