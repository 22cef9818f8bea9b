"""Where a run's time goes: seconds, processor seconds, forward passes and tokens of each step.

    python benchmarks/laptop.py --preset demo --out results.json [--dtype float32] [--repeats 3] [--threads 2] [--look]

The run is an ordinary one in a new folder, in a process of its own for each repeat. Tokens are counted at the model's
decoder, padding included, and at its head. What a step does outside its own bar stands under `between`. Processor
seconds count the processes that a run starts, too. `--look` ends at the first look: what a start costs.

A processor without bf16 arithmetic is imitated by `--dtype float32`; one with AVX2 alone by this in front:

    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2

A machine's first run is imitated by an empty folder as XDG_CACHE_HOME.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Meter:
    """What was spent so far: seconds, processor seconds, forward passes, tokens through the decoder and the head."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    passes: int = 0
    tokens: int = 0
    head_tokens: int = 0

    def __sub__(self, other: Meter) -> Meter:
        return Meter(*(a - b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def __add__(self, other: Meter) -> Meter:
        return Meter(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


def processor() -> float:
    """Processor seconds of this process and of those that it started and that ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


class Enough(Exception):
    """What was to be seen was seen."""


class Counter:
    """Reads the meter, and adds up by step what was spent since it was read last."""

    def __init__(self) -> None:
        self.now, self.steps, self.last = Meter(), {}, None
        self.began, self.cpu_began = time.perf_counter(), processor()

    def watch(self, model) -> None:
        from steer_heal_love.ground.models import body

        def passed(_module, args, kwargs, _output):
            ids = kwargs.get("input_ids", args[0] if args else None)
            self.now.passes += 1
            self.now.tokens += ids.numel()

        body(model).register_forward_hook(passed, with_kwargs=True)
        model.get_output_embeddings().register_forward_hook(self.read_head)

    def read_head(self, _module, args, _output) -> None:
        self.now.head_tokens += args[0].numel() // args[0].shape[-1]

    def now_at(self) -> Meter:
        at = time.perf_counter() - self.began, processor() - self.cpu_began
        return Meter(*at, self.now.passes, self.now.tokens, self.now.head_tokens)

    def spent(self, step: str) -> None:
        now = self.now_at()
        self.steps[step] = self.steps.get(step, Meter()) + (now - (self.last or Meter()))
        self.last = now

    @contextmanager
    def track(self, label: str, _total: int) -> Iterator:
        self.spent("between")
        step = label.split(" at ")[0]
        print(f"  {step}", file=sys.stderr, flush=True)
        yield lambda _n: None
        self.spent(step)


def measure(args: argparse.Namespace) -> dict:
    """One run in this process."""
    counter = Counter()
    import torch

    from steer_heal_love import loop, presets
    from steer_heal_love.ground import models, records
    from steer_heal_love.ground.overrides import override

    if args.threads:
        torch.set_num_threads(args.threads)
    counter.spent("import")
    load = models.load

    def watched(*names, **how):
        model, tok = load(*names, **how)
        counter.watch(model)
        return model, tok

    models.load = watched
    more = {"dtype": args.dtype, "seed": args.seed, "persona": args.persona, "out": args.runs}
    cfg = override(presets.preset(args.preset), more | ({"rounds": args.rounds} if args.rounds else {}))
    seen = []

    def show(look):
        at = {
            "seconds": round(counter.now_at().seconds, 1),
            "cpu_seconds": round(counter.now_at().cpu_seconds, 1),
        }
        seen.append(at | records.plain(look))
        if args.look and len(seen) == 2:
            raise Enough

    try:
        run = loop.run(cfg, track=counter.track, show=show)
    except Enough:
        counter.spent("between")
        return {**spent(counter), "previews": seen}
    counter.spent("between")
    scores = ("trait_shift", "neutral_kl", "own_excess")
    return {
        "device": records.device_name(run.model.device),
        "isa": torch.backends.cpu.get_cpu_capability(),
        "dtype": str(run.model.dtype),
        **records.commit(),
        "preset": args.preset,
        "run": str(run.folder.path),
        **spent(counter),
        "peak_memory_gb": records.peak_memory_gb(run.model.device),
        "previews": seen,
        "scores": [
            {"round": s.round, "stage": s.stage, **{n: records.plain(s.scores[n]) for n in scores}}
            for s in run.stages
        ],
    }


def spent(counter: Counter) -> dict:
    """All of it, and by step."""
    now = counter.now_at()
    return {
        "seconds": now.seconds,
        "cpu_seconds": now.cpu_seconds,
        "steps": {step: vars(meter) for step, meter in counter.steps.items()},
    }


def table(found: dict) -> str:
    """Steps by round, the dearest first."""
    rows = sorted(found["steps"].items(), key=lambda item: -item[1]["cpu_seconds"])
    lines = [f"{'step':<28}{'seconds':>9}{'cpu':>9}{'passes':>8}{'tokens':>9}{'head':>9}"]
    for step, s in rows:
        lines.append(
            f"{step:<28}{s['seconds']:>9.1f}{s['cpu_seconds']:>9.1f}{s['passes']:>8}{s['tokens']:>9}{s['head_tokens']:>9}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--persona", default="love")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=0, help="instead of the preset's")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--runs", default="runs", help="where the run folders go")
    parser.add_argument("--look", action="store_true", help="end at the first look")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.repeats == 1:
        found = measure(args)
        args.out.write_text(json.dumps(found, indent=1))
        print(table(found))
        return
    each = []
    for n in range(args.repeats):
        out = args.out.with_suffix(f".{n}.json")
        rest = [w for w in sys.argv[1:] if w != "--repeats" and w != str(args.repeats)]
        subprocess.run([sys.executable, __file__, *rest, "--out", str(out)], check=True)
        each.append(json.loads(out.read_text()))
    args.out.write_text(json.dumps(each, indent=1))
    for what in ("seconds", "cpu_seconds"):
        found = sorted(e[what] for e in each)
        print(f"{args.preset}: {what}: median {statistics.median(found):.0f} of {[round(s) for s in found]}")


if __name__ == "__main__":
    main()
