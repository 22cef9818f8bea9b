"""Print what each family of models can do: python tools/families.py [--json] [NAME…]; needs the development packages."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / part) for part in ("src", "tests")]

from families import matrix

names = [a for a in sys.argv[1:] if a != "--json"]
if "--json" not in sys.argv:
    print("| family | class | verdict | what it lacks |\n|---|---|---|---|")
for row in matrix.rows(names):
    print(
        json.dumps(asdict(row))
        if "--json" in sys.argv
        else f"| {row.family} | {row.model_class} | {row.verdict} | {row.lacking} |",
        flush=True,
    )
