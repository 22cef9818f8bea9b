"""The benchmark of several copies, on two processes and a model of a few layers: each section says what it is for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_every_section_compares_one_copy_with_two(tok, tmp_path):
    tok.save_pretrained(tmp_path / "tok")
    small = [
        "--device",
        "cpu",
        "--shape",
        "tiny",
        "--scale",
        "0.02",
        "--rows",
        "8",
        "--repeats",
        "1",
        "--epochs",
        "1",
    ]
    argv = [
        sys.executable,
        "benchmarks/replicas.py",
        *small,
        "--tokenizer",
        str(tmp_path / "tok"),
        "--out",
        str(tmp_path / "out.jsonl"),
    ]
    done = subprocess.run(
        argv, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT / "src")}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert not [line for line in lines if "error" in line or "skipped" in line]
    ratios = {line["section"]: line for line in lines if "ratio" in line}
    assert ratios.keys() == {"generation", "evaluation", "filter", "heal"}
    assert all(line["ratio"] > 0 and set(line["seconds"]) == {"1", "2"} for line in ratios.values())
    for line in (ratios["generation"], *(s for s in lines if s["section"] in ("tokens", "split tokens"))):
        assert line["same_rows"] == line["rows"] >= 8
    rooms = [line["room"] for line in lines if line["section"] == "split" and "room" in line]
    assert rooms == ["extract", "generate", "filter", "heal", "bake", "evaluate"]
