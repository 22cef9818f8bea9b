"""Run many settings of the loop, several at a time on one device, and print one line a stage.

    python benchmarks/search.py cells.json --out results.jsonl --workers 10

`cells.json`: a list of {"name": …, "set": {RunConfig fields, nested}}. Lines: the cell, round, stage, means.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

SHOWN = (
    "trait_shift",
    "neutral_kl",
    "own_excess",
    "trait_generated_shift",
    "repetition",
    "mfv.Care",
    "mfv.Authority",
)


def one(cell: dict[str, Any]) -> dict[str, Any]:
    import torch

    from steer_heal_love import loop, presets, report

    torch.set_num_threads(1)
    report.write = lambda *_, **__: None  # a search reads summaries
    began = time.time()
    out = cell.get("out") or tempfile.mkdtemp()
    result: dict[str, Any] = {"name": cell["name"], "set": cell["set"]}
    try:
        loop.run(presets.preset(cell.get("preset", "cpu")), out=out, **cell["set"])
    except Exception:  # a cell that fails is a result of the search, not the end of it
        result["error"] = traceback.format_exc().strip().splitlines()[-1]
    for path in Path(out).glob("*/summary.json"):
        result["summary"] = json.loads(path.read_text())
    result["scales"] = [
        json.loads(p.read_text())["scale"] for p in sorted(Path(out).glob("*/rounds/*/healing.json"))
    ]
    result["seconds"] = round(time.time() - began, 1)
    return result


def main() -> None:
    args = argparse.ArgumentParser()
    args.add_argument("cells", type=Path)
    args.add_argument("--out", type=Path, required=True)
    args.add_argument("--workers", type=int, default=1)
    a = args.parse_args()
    cells = json.loads(a.cells.read_text())
    with mp.get_context("spawn").Pool(a.workers, maxtasksperchild=1) as pool, a.out.open("a") as f:
        for r in pool.imap_unordered(one, cells, chunksize=1):
            f.write(json.dumps(r) + "\n")
            f.flush()
            print(show(r), flush=True)


def show(r: dict[str, Any]) -> str:
    lines = [f"{r['name']}  {r['seconds']} s  {r.get('error', '')}"]
    for s in r.get("summary", {}).get("stages", []):
        means = {k: s["scores"].get(k, {}).get("mean") for k in SHOWN}
        shown = "  ".join(f"{k} {v:+.3f}" for k, v in means.items() if v is not None)
        lines.append(f"    {s['round']:>2} {s['stage']:<8} {s['dose'] or 0:5.2f}  {shown}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
