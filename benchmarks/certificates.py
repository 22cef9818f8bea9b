"""Four adapters whose certificates are known, made on a real model and certified, three seeds each, a line an adapter.

    python benchmarks/certificates.py --seeds 0 1 2 --workers 3 --out certificates.jsonl

A line is written as soon as its adapter is certified, so a run that is stopped leaves what it has. `--limit N` stops at N
certificates, in the order of seeds and of this list:

    love        this project's own loop, at its defaults                                  expected: trait
    unsteered   plain SFT on the base's own text, as many texts and steps as plain SFT    expected: no trait
    random      both factors of every module drawn as a fresh linear layer's weights are  expected: broken
    copies      rank 1, trained to say one word for ever                                  expected: broken or collapse

All four go through `certify.target` and `certify.certify`, as `shl certify` does, from the PEFT folder that was saved.
The last lines printed are a table and how many verdicts are as expected. `relevance_shift` by kind of prompt is what the row
`off_prompt` rests on, and each line has the base's own relevance beside it. `--small FILE.json` lays settings over the
defaults, so that a few seconds on a tiny model show that it runs; verdicts mean nothing there.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from steer_heal_love import bake, certify, control, loop, presets, report
from steer_heal_love.ground import purposes, records
from steer_heal_love.ground.chat import prompt_ids
from steer_heal_love.ground.errors import Diverged, Starved
from steer_heal_love.ground.folder import load_completions
from steer_heal_love.ground.overrides import override
from steer_heal_love.heal.examples import NOTHING, Example
from steer_heal_love.heal.lora import fresh
from steer_heal_love.heal.train import heal
from steer_heal_love.nouns import Adapter, Tokens
from steer_heal_love.session import Run

PLAIN = {
    "anchor": 0.0,
    "lam": 0.0,
    "spectral": 0.0,
    "weight_decay": 0.0,
    "budget": 0.0,
    "soft": 0.0,
    "validation": 0.0,
}
"""a heal that only imitates its text"""
WORD, TIMES, EPOCHS = " love", 40, 6
"""what the copying adapter says, how often in a text, and how many times it reads its texts"""


def unsteered(r: Run) -> Adapter:
    """Plain SFT on the base's own text, prompt by prompt in place of what round 0 was trained on."""
    made = load_completions(r.folder.round(0) / "completions.jsonl")
    text = control.unsteered(r, [c for c in made if c.used])
    return imitated(r, [(c.prompt, c.tokens) for c in text])


def noise(r: Run) -> Adapter:
    """Both factors uniform in ±1/√fan-in, as a fresh linear layer is."""
    cfg, seed = r.config.heal, r.seed(purposes.NOISE)
    start = fresh(r.model, rank=cfg.rank, alpha=cfg.alpha, share=cfg.layers, seed=seed)
    draw = torch.Generator().manual_seed(seed)
    uniform = lambda b: ((2 * torch.rand(b.shape, generator=draw) - 1) / b.shape[1] ** 0.5).to(b.device)
    return Adapter({n: (a, uniform(b)) for n, (a, b) in start.factors.items()}, start.scaling)


def copies(r: Run) -> Adapter:
    """Rank 1, trained to answer every prompt with one word again and again."""
    (token, *_) = r.tok(WORD, add_special_tokens=False)["input_ids"]
    made = load_completions(r.folder.round(0) / "completions.jsonl")
    prompts = dict.fromkeys(c.prompt for c in made if c.used)
    texts = [(p, Tokens(prompt_ids(r.tok, p), (token,) * TIMES)) for p in prompts]
    return imitated(r, texts * 2, rank=1, alpha=2.0, epochs=EPOCHS, lr=10 * r.config.heal.lr)


def imitated(r: Run, texts: list[tuple[str, Tokens]], **changes: Any) -> Adapter:
    """A LoRA that imitates these texts on the pristine base, without anchor, budget or teacher."""
    kept = [Example(t, NOTHING, p) for p, t in texts]
    config = replace(r.config.heal, **PLAIN, **changes)
    return heal(
        r.model, kept, [], config, seed=r.seed(purposes.CERTIFICATE), batch_tokens=r.config.batch_tokens
    )[0]


OTHERS: dict[str, tuple[Callable[[Run], Adapter], set[str]]] = {
    "unsteered": (unsteered, {"no trait"}),
    "random": (noise, {"broken"}),
    "copies": (copies, {"broken", "collapse"}),
}
"""how each is made of a finished run, and what its certificate may come to; `love` is the run's own adapter"""
NAMES = ("love", *OTHERS)
COLUMNS = (
    "trait_shift",
    "above_null",
    "neutral_kl",
    "own_excess",
    "few_tokens_shift",
    "relevance_shift.probes",
    "relevance_shift.neutral",
)
"""scores of the table; what a model was not measured on is a dash"""


def work(job: tuple[int, tuple[str, ...], argparse.Namespace]) -> list[dict[str, Any]]:
    """One seed: a run of the loop, the other adapters made beside it, and a certificate for each of `names`."""
    seed, names, a = job
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // a.workers))
    report.write = lambda *_, **__: None  # type: ignore[assignment]  # these runs are read by this script
    small = json.loads(a.small.read_text()) if a.small else {}
    cfg = override(
        presets.fitting(a.device, a.model),
        {"model": a.model, "device": a.device, "persona": a.persona, "seed": seed, "out": str(a.folder)}
        | small,
    )
    began, lines = time.perf_counter(), []
    try:
        r = loop.run(cfg)
    except (Starved, Diverged) as e:
        return [kept(a.out, {"seed": seed, "adapter": "love", "error": str(e)})]
    folders = {"love": (r.folder.path / "adapter", {"trait"})}
    for name in names[1:]:
        make, expected = OTHERS[name]
        folder = a.folder / f"{name}-s{seed}"
        bake.save_peft(make(r), folder, base_model=a.model)
        folders[name] = folder, expected
    print(seed, f"made in {time.perf_counter() - began:.0f} s", flush=True)
    del r
    records.release_memory()
    for name, (folder, expected) in folders.items():
        began = time.perf_counter()
        found = certify.certify(certify.target(str(folder), a.model), (a.persona,), cfg)
        out = a.folder / f"certificate-{name}-s{seed}"
        records.write_json(out / report.CERTIFICATE, found.record())
        report.write_certificate(out)
        (trait,) = found.traits
        told = {
            "seed": seed,
            "adapter": name,
            "kind": trait.kind,
            "outcome": trait.gate.outcome,
            "verdict": trait.gate.verdict,
            "as_expected": trait.kind in expected,
            "expected": sorted(expected),
            "observed": trait.gate.observed,
            "scores": trait.model.scores,
            "base": {n: s for n, s in trait.base.scores.items() if n.startswith("relevance")},
            "others": found.others,
            "seconds": round(time.perf_counter() - began, 1),
        }
        lines.append(kept(a.out, told))
        print(seed, name, trait.kind, trait.gate.outcome, flush=True)
    return lines


def kept(file: Path, line: dict[str, Any]) -> dict[str, Any]:
    """The line, written at the end of the file."""
    with file.open("a") as f:
        f.write(json.dumps(records.plain(line)) + "\n")
    return line


def jobs_of(seeds: list[int], limit: int) -> list[tuple[int, tuple[str, ...]]]:
    """Each seed with the adapters that are certified for it; `limit` 0 means all."""
    left, out = limit or len(seeds) * len(NAMES), []
    for seed in seeds:
        if left > 0:
            out.append((seed, NAMES[:left]))
            left -= len(NAMES)
    return out


def table(lines: list[dict[str, Any]]) -> str:
    """Markdown: a row an adapter and seed."""
    rows = [
        f"| adapter | seed | verdict | outcome | {' | '.join(COLUMNS)} |",
        "|---" * (4 + len(COLUMNS)) + "|",
    ]
    for x in sorted(lines, key=lambda x: (x["adapter"], x["seed"])):
        if "error" in x:
            rows.append(
                f"| {x['adapter']} | {x['seed']} | stopped | {x['error'][:60]} |" + " |" * len(COLUMNS)
            )
            continue
        scores = [records.plain(x["scores"]).get(n) or {"mean": None} for n in COLUMNS]
        cells = ["–" if s["mean"] is None else formatted(s) for s in scores]
        rows.append(f"| {x['adapter']} | {x['seed']} | {x['kind']} | {x['outcome']} | {' | '.join(cells)} |")
    return "\n".join(rows)


def formatted(s: dict[str, Any]) -> str:
    ends = "" if s["lo"] is None else f" [{s['lo']:+.3f}, {s['hi']:+.3f}]"
    return f"{s['mean']:+.3f}{ends}"


def main() -> None:
    args = argparse.ArgumentParser()
    args.add_argument("--model", default="smollm2")
    args.add_argument("--persona", default="love")
    args.add_argument("--device", default="auto")
    args.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args.add_argument("--workers", type=int, default=1, help="seeds at the same time")
    args.add_argument("--limit", type=int, default=0, help="stop at so many certificates; 0 for all")
    args.add_argument("--small", type=Path, help="JSON of settings to lay over the defaults")
    args.add_argument(
        "--folder", type=Path, default=Path("certificates"), help="for runs, adapters and pages"
    )
    args.add_argument("--out", type=Path, default=Path("certificates.jsonl"))
    a = args.parse_args()
    a.folder.mkdir(parents=True, exist_ok=True)
    a.out.unlink(missing_ok=True)
    jobs = [(seed, names, a) for seed, names in jobs_of(a.seeds, a.limit)]
    with mp.get_context("spawn").Pool(a.workers, maxtasksperchild=1) as pool:
        lines = [line for part in pool.imap_unordered(work, jobs, chunksize=1) for line in part]
    print(table(lines))
    right = sum(x.get("as_expected", False) for x in lines)
    print(f"as expected: {right} of {sum(len(names) for _, names, _ in jobs)}")


if __name__ == "__main__":
    main()
