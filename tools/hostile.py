"""Hostile inputs of every kind, each drawn from a seed: what becomes of them, as counts.

    PYTHONPATH=src python3 tools/hostile.py --each 120 --out hostile.json

Must be 0: tracebacks, raw escapes on the terminal, silent wrong results, files written beside. Exit 1 otherwise. A case is
repeated by its kind and seed: `--kind KIND --first SEED --each 1`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import asdict
from pathlib import Path

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "STEER_HEAL_LOVE_CACHE": "off",
    "OMP_NUM_THREADS": "1",
    "JAXTYPING_DISABLE": "1",
}
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

import torch

import tiny_run
from judge import MAKERS, judged

FAULTS = ("traceback", "raw", "silent", "written")


def asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--each", type=int, default=120, help="cases of every kind")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument(
        "--kind", choices=sorted(MAKERS), action="append", help="only these; may be given again"
    )
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds for everything")
    parser.add_argument("--out", type=Path, help="a JSON file for the counts and every case")
    return parser.parse_args()


def main() -> None:
    given, began, found = asked(), time.monotonic(), []
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    tiny_run.made_cheap()
    for seed in range(given.first, given.first + given.each):
        for kind in given.kind or MAKERS:
            if time.monotonic() - began > given.limit:
                break
            with tempfile.TemporaryDirectory() as folder:
                found.append(one := judged(kind, seed, Path(folder)))
            if one.fault:
                print(
                    f"{one.kind}, seed {one.seed}, {one.what}: {one.fault}".encode("unicode_escape").decode(),
                    flush=True,
                )
    counts = {"inputs": len(found), "refused": sum(v.refused for v in found)}
    counts |= {fault: sum(v.fault.startswith(fault) for v in found) for fault in FAULTS}
    by_kind = Counter(v.kind for v in found)
    print(
        json.dumps(
            counts | {"by_kind": by_kind, "wall_seconds": round(time.monotonic() - began, 1)}, indent=1
        )
    )
    if given.out:
        given.out.write_text(
            json.dumps(
                {
                    "counts": counts,
                    "by_kind": by_kind,
                    "first_seed": given.first,
                    "cases": [asdict(v) for v in found],
                },
                indent=1,
            )
            + "\n"
        )
    sys.exit(any(v.fault for v in found))


if __name__ == "__main__":
    main()
