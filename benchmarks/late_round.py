"""A run of two rounds and more through `loop.run` itself, on random weights of a known shape: where a late round's time goes.

The weights are saved as a folder and loaded as a user's would be. Random text says nothing, so the filter checks only that
it is no refusal, and the walk stays where it begins. Each step's seconds are those of the run's own log; a round's go by the
clock, from one conclusion to the next. Instruments and steps within steps are timed here, and the device is waited for before and
after each. Beside the seconds stand the tokens that the decoder read meanwhile, padding included, but for those that a captured
graph read.

`python benchmarks/late_round.py --shape qwen3-4b --tokenizer FOLDER --out late_round.json`; `--shape tiny` is a dry run.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import floors
import rooms
import shapes
import torch
from shared import nested

from steer_heal_love import evals, loop, presets
from steer_heal_love.evals import transfer
from steer_heal_love.ground import models, parts, records
from steer_heal_love.ground.folder import RunFolder
from steer_heal_love.ground.overrides import override

RANDOM = {"filter": {"checks": ["refusal"]}, "walk": {"start": 0.004, "floor": 0.001, "ceiling": 0.0064}}
"""settings with which a run on random weights keeps its text, and walks no further than a run on real ones"""
SMALL = {
    "batch_tokens": 2048,
    "generate": {"prompts": 12, "max_new_tokens": 24},
    "filter": {"keep": 16, "calibration": 16, "least": 4},
    "heal": {"epochs": 2, "anchor_prompts": 12, "anchor_tokens": 8},
    "eval": {"sample_prompts": 4, "sample_tokens": 8, "vignettes": 4, "capability_blocks": 1, "probes": 8},
}


class Clock:
    """Seconds by the name of what ran, of the round that is on."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.round = device, ""
        self.seconds: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.tokens: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self.read = 0

    def count_tokens_of(self, model: Any) -> None:
        """Count what this model's decoder reads from here on."""

        def passed(_module: Any, args: Any, kwargs: Any, _output: Any) -> None:
            ids = kwargs.get("input_ids", args[0] if args else None)
            self.read += 0 if ids is None else ids.numel()

        parts.body(model).register_forward_hook(passed, with_kwargs=True)

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        """What is spent inside counts for `name`, of the round that is on."""
        start, before = self.now(), self.read
        try:
            yield
        finally:
            self.seconds[self.round][name].append(self.now() - start)
            self.tokens[self.round][name] += self.read - before

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @contextmanager
    def track(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """A run's `track`: what takes part in the run by its label."""
        self.round, _, name = label.rpartition(": ")
        with self.on(name):
            yield lambda _n: None

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*args: Any, **kwargs: Any) -> Any:
            with self.on(name):
                return work(*args, **kwargs)

        return measured

    def watch_instruments(self) -> None:
        """Time each instrument's parts from here on, in this process."""
        for name, i in evals.instruments.items():
            inside, outside = (
                self.timed(f"{name} {part}", work)
                for part, work in (("inside", i.inside), ("outside", i.outside))
            )
            object.__setattr__(i, "inside", inside)
            object.__setattr__(i, "outside", outside)
        for part in ("own_shift", "ledger", "causes"):
            setattr(transfer, part, self.timed(f"transfer {part}", getattr(transfer, part)))

    def watch_models(self) -> None:
        """Count the tokens of every model that is loaded from here on."""
        load = models.load

        def loaded(*args: Any, **kwargs: Any) -> Any:
            model, tok = load(*args, **kwargs)
            self.count_tokens_of(model)
            return model, tok

        models.load = loaded

    def watch_rounds(self) -> None:
        """Note when each round has been concluded, from here on."""
        self.concluded: list[float] = []

        def noted(*args: Any, **kwargs: Any) -> None:
            conclude(*args, **kwargs)
            self.concluded.append(self.now())

        conclude, loop.conclude = loop.conclude, noted

    @property
    def rounds(self) -> dict[str, float]:
        """Seconds of every round but the first, from when the run went on after the round before until it goes on after this
        one: steps, what is written, hashed and read back after each, and what has to be there before the next one begins. After
        the last round that is everything; after the others a GPU's run draws the report while it goes on."""
        spent = (after - before for before, after in itertools.pairwise(self.concluded))
        return {str(k): seconds for k, seconds in enumerate(spent, 1)}


def by_step(folder: Path) -> dict[str, dict[str, list[float]]]:
    """Seconds of every step from the run's log, by round; a step of the base has none."""
    out: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for e in RunFolder(folder).done():
        out[str(e.get("round", "base"))][e["room"]].append(e["seconds"])
    return out


def main(argv: list[str] | None = None) -> dict[str, Any]:
    args = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    args.add_argument("--shape", choices=shapes.NAMES, required=True)
    args.add_argument("--out", type=Path, required=True, help="JSON")
    args.add_argument("--rounds", type=int, default=2)
    args.add_argument("--device", default=models.auto_device())
    args.add_argument("--tokenizer", default="smollm2", help="folder of a tokenizer with a chat template")
    args.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of a run")
    a = args.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        model, tok = shapes.build(a.shape, device=a.device, tokenizer=a.tokenizer)
        folder, device = Path(scratch) / "model", model.device
        model.save_pretrained(folder)
        tok.save_pretrained(folder)
        del model
        records.release_memory()
        ceilings = floors.measured(device, torch.bfloat16 if device.type == "cuda" else torch.float32)
        base = presets.preset("gpu")
        for changes in (RANDOM, SMALL if a.shape == "tiny" else {}, nested(a.set)):
            base = override(base, changes)
        clock = Clock(device)
        clock.watch_instruments()
        clock.watch_models()
        clock.watch_rounds()
        names = {
            "model": str(folder),
            "rounds": a.rounds,
            "out": str(Path(scratch) / "runs"),
            "device": a.device,
        }
        start = time.perf_counter()
        run = loop.run(base, track=clock.track, **names)
        out = {
            **rooms.machine(device),
            "shape": a.shape,
            "ceilings": ceilings,
            "config": run.config,
            "seconds": time.perf_counter() - start,
            "peak_memory_gb": run.folder.peak_memory_gb(),
            "walks": [this.row for this in run.rounds],
            "steps": by_step(run.folder.path),
            "rounds": clock.rounds,
            "within": clock.seconds,
            "tokens": clock.tokens,
        }
    records.write_json(a.out, out)
    for number, steps in out["steps"].items():
        whole = (
            f", {out['rounds'][number]:.1f} s with all that lies between" if number in out["rounds"] else ""
        )
        print(f"round {number}: {sum(map(sum, steps.values())):.1f} s{whole}")
        for name, each in steps.items():
            print(f"  {name:<28} {sum(each):8.2f}")
    for number, within in clock.seconds.items():
        print(f"within {number or 'the base'}")
        for name, each in sorted(within.items(), key=lambda item: -sum(item[1])):
            print(f"  {name:<40} {sum(each):8.2f} in {len(each)}  {clock.tokens[number][name]:>9} tokens")
    return out


if __name__ == "__main__":
    main()
