"""What carries one heal: each ingredient alone and each left out, on the same base and the same texts, at equal drift.

    python benchmarks/ablation.py --personas love joy --seeds 0 1 2 --workers 6 --out ablation.jsonl
    python benchmarks/ablation.py --table ablation.jsonl

Every row is one heal from the base at round 0's settings with some of them changed, scaled to the same neutral_kl
(`--neutral-kl`), then measured as a run's healed model is; or a second heal after a default one at half of that drift,
where the barrier can be measured from the base or from the student that the first one made (`heal.reference`). A line of
the results file is one row of one persona and seed with its per-item values; `--table` prints means with intervals over
items and seeds, and each row's difference from the default, paired by item and seed.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing as mp
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steer_heal_love.ground.stats import crossed, subtract

TEXTS = 72
"""texts that the largest row is trained on; the others take some of the same"""
USUAL = 36
DEFAULT = "default"
ALONE = {"anchor": 0.0, "lam": 0.0, "spectral": 0.0, "weight_decay": 0.0, "soft": 0.0}


@dataclass(frozen=True)
class Row:
    """One way of healing: which texts, how many, which settings differ from the defaults."""

    name: str
    pool: str = "kept"
    texts: int = USUAL
    settings: dict[str, Any] = field(default_factory=dict)
    second: bool = False
    """whether it is trained on the student of a default heal at half of the drift, and brings both to the whole"""


def alone(name: str, **settings: Any) -> Row:
    return Row(f"NLL and {name} alone", settings=ALONE | settings)


def barrier(divergence: str, aggregate: str, lam: float = 1.0) -> dict[str, Any]:
    return {"divergence": divergence, "aggregate": aggregate, "lam": lam, "tau": 0.0}


ROWS = [
    Row(DEFAULT),
    *(Row(f"{n} texts", texts=n) for n in (9, 18, 72)),
    Row("no filter: random completions at doses up to the walked", pool="random"),
    Row("no steered text: the base's own, filtered", pool="unsteered"),
    Row("no steered text, soft targets only", pool="unsteered", settings={"soft": 1.0}),
    Row("steered text, soft targets only", settings={"soft": 1.0}),
    Row("hard targets only", settings={"soft": 0.0}),
    Row("no steered text, hard targets only", pool="unsteered", settings={"soft": 0.0}),
    Row("no anchor", settings={"anchor": 0.0}),
    Row("anchor at temperature 1", settings={"anchor_temperature": 1.0}),
    Row("default and reverse KL, mean", settings=barrier("reverse_kl", "mean", 0.5)),
    Row("NLL alone", settings=ALONE),
    alone("anchor", anchor=1.0),
    alone("anchor, weight 3", anchor=3.0),
    *(alone(f"reverse KL, {how}", **barrier("reverse_kl", how)) for how in ("mean", "rmse", "p95", "max")),
    *(alone(f"forward KL, {how}", **barrier("forward_kl", how)) for how in ("mean", "rmse")),
    alone("weight decay 0.1", weight_decay=0.1),
    alone("weight decay 100", weight_decay=100.0),
    alone("spectral norm, weight 0.01", spectral=0.01),
    alone("spectral norm, weight 1", spectral=1.0),
    Row("second heal, default", second=True),
    *(
        Row(
            f"second heal, NLL and reverse KL to the {reference}",
            settings=ALONE | barrier("reverse_kl", "mean") | {"reference": reference},
            second=True,
        )
        for reference in ("base", "previous")
    ),
]


def cells(job: tuple[str, int, argparse.Namespace]) -> Iterator[dict[str, Any]]:
    """Every row of one persona and seed."""
    import torch
    from heals import Lab

    persona, seed, a = job
    torch.set_num_threads(1)
    small = json.loads(a.set)
    texts = small.pop("texts", TEXTS)
    changes = {
        "persona": persona,
        "seed": seed,
        "generate": {"prompts": 24, "batch": 96},
        "filter": {"keep": texts},
    }
    lab = Lab.open(merged(changes, small), texts=texts)
    wanted = [r for r in ROWS if not a.rows or r.name in a.rows]
    base = lab.run.stages[0]
    yield {
        "persona": persona,
        "seed": seed,
        "row": "base",
        "items": base.items,
        "dose": lab.dose,
        "pools": {n: len(p) for n, p in lab.pools.items()},
        "prompt": items_of(lab.run.stages[1]),
    }

    @functools.cache
    def first() -> Any:
        """The default heal at half of the drift."""
        adapter = lab.heal(lab.pools["kept"][:USUAL], {})
        return adapter.scaled(lab.at_drift(adapter, a.neutral_kl / 2))

    for row in wanted:
        began = time.time()
        used = lab.pools[row.pool][: row.texts]
        before = [first()] if row.second else []
        adapter = lab.heal(used, row.settings, after=before)
        full = lab.drift(*before, adapter)
        scale = lab.at_drift(adapter, a.neutral_kl, after=before)
        stage = lab.evaluate(*before, adapter.scaled(scale))
        yield {
            "persona": persona,
            "seed": seed,
            "row": row.name,
            "texts": len(used),
            "scale": scale,
            "unscaled_kl": full,
            "scores": {k: s.mean for k, s in stage.scores.items()},
            "items": items_of(stage),
            "seconds": round(time.time() - began, 1),
        }


def items_of(stage: Any) -> dict[str, list[float]]:
    """Per-item values to six digits."""
    return {k: [round(v, 6) for v in values] for k, values in stage.items.items()}


def merged(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """b over a, nested."""
    return a | {
        k: merged(a[k], v) if isinstance(v, dict) and isinstance(a.get(k), dict) else v for k, v in b.items()
    }


def work(job: tuple[str, int, argparse.Namespace]) -> int:
    """One persona and seed, written line by line; its number of rows."""
    persona, seed, a = job
    part = a.out.with_name(f"{a.out.stem}-{persona}-{seed}.jsonl")
    n = 0
    with part.open("w") as f:
        for n, line in enumerate(cells(job), 1):  # noqa: B007
            f.write(json.dumps(line) + "\n")
            f.flush()
            print(persona, seed, line["row"], shown(line), flush=True)
    return n


def shown(line: dict[str, Any]) -> str:
    wanted = (
        "trait_shift",
        "trait_pos",
        "trait_neg",
        "neutral_kl",
        "own_excess",
        "own_kl",
        "behaviour_shift",
    )
    found = {k: line.get("scores", {}).get(k) for k in wanted}
    return "  ".join(f"{k} {v:+.3f}" for k, v in found.items() if v is not None)


# The table. A shift is paired with the base of its own seed, item by item.
COLUMNS = {
    "trait_shift": ("trait", 1.0),
    "trait_pos": ("nll_pos", -1.0),
    "trait_neg": ("nll_neg", 1.0),
    "behaviour_shift": ("behaviour", 1.0),
    "own_excess": ("own_nll", 1.0),
    "own_kl": ("own_kl", 0.0),
    "repetition_shift": ("repetition", 1.0),
    "neutral_kl": ("neutral_kl", 0.0),
}


def table(lines: list[dict[str, Any]], persona: str) -> str:
    """Markdown: a row a heal, means with intervals over items × seeds, the difference of trait_shift from the default."""
    mine = [x for x in lines if x["persona"] == persona]
    seeds = sorted({x["seed"] for x in mine})
    at = {(x["seed"], x["row"]): x for x in mine}
    names = [r.name for r in ROWS if all((s, r.name) in at for s in seeds)]
    present = [c for c, (item, _) in COLUMNS.items() if item in at[seeds[0], names[0]]["items"]]

    def values(row: str, column: str) -> list[list[float]]:
        item, sign = COLUMNS[column]
        out = []
        for s in seeds:
            mine, base = at[s, row]["items"][item], at[s, "base"]["items"].get(item)
            out.append([sign * v for v in subtract(mine, base)] if sign else mine)
        return out

    head = ["heal", *present, f"trait_shift against {DEFAULT}"]
    rows = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name in names:
        cells = [formatted(crossed(values(name, c), resamples=2000)) for c in present]
        gap = [
            subtract(x, y)
            for x, y in zip(values(name, "trait_shift"), values(DEFAULT, "trait_shift"), strict=True)
        ]
        cells.append("" if name == DEFAULT else formatted(crossed(gap, resamples=2000)))
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def formatted(s: Any) -> str:
    return f"{s.mean:+.3f} [{s.lo:+.3f}, {s.hi:+.3f}]"


def main() -> None:
    args = argparse.ArgumentParser()
    args.add_argument("--personas", nargs="+", default=["love"])
    args.add_argument("--seeds", nargs="+", type=int, default=[0])
    args.add_argument("--neutral-kl", type=float, default=0.02)
    args.add_argument("--rows", nargs="*", help="names of rows; all where none is named")
    args.add_argument("--set", default="{}", help="JSON of RunConfig fields over the experiment's own")
    args.add_argument("--workers", type=int, default=1)
    args.add_argument("--out", type=Path)
    args.add_argument("--table", type=Path, nargs="+", help="print the table of results files instead")
    a = args.parse_args()
    if a.table:
        lines = [json.loads(line) for f in a.table for line in f.read_text().splitlines()]
        for persona in sorted({x["persona"] for x in lines}):
            print(f"\n{persona}\n\n{table(lines, persona)}")
        return
    jobs = [(p, s, a) for p in a.personas for s in a.seeds]
    with mp.get_context("spawn").Pool(a.workers, maxtasksperchild=1) as pool:
        print("rows:", sum(pool.imap_unordered(work, jobs, chunksize=1)))


if __name__ == "__main__":
    main()
