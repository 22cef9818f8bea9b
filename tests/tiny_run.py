"""The smallest run and the smallest comparison that write every kind of file, for tests of folders and for tools/kills.py."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from markupsafe import Markup

from steer_heal_love import compare, loop
from steer_heal_love.config import Grid
from steer_heal_love.ground import models
from steer_heal_love.report import canvas
from tiny_model import build_model, build_tokenizer

SETTINGS: dict[str, Any] = {
    "persona": "love",
    "model": "tiny",
    "rounds": 2,
    "seed": 3,
    "device": "cpu",
    "coherence_floor": 100.0,
    "vector": {"contexts": 4, "layers": [0.3, 0.8]},
    "generate": {"prompts": 8, "max_new_tokens": 6},
    "walk": {"start": 0.2, "doses": 2, "survival": 0.3, "passes": 1, "floor": 0.02, "ceiling": 0.4},
    "filter": {"checks": ["nll", "repeat_words"], "quantile": 1.0, "keep": 4, "calibration": 8, "least": 2},
    "heal": {
        "rank": 2,
        "alpha": 4.0,
        "epochs": 1,
        "lr": 4e-3,
        "batch": 2,
        "anchor": 0.1,
        "lam": 0.1,
        "anchor_prompts": 4,
        "anchor_tokens": 4,
    },
    "eval": {
        "instruments": ["neutral", "probes", "samples"],
        "probes": 2,
        "transfer": "full",
        "neutral_prompts": 4,
        "sample_prompts": 2,
        "sample_tokens": 4,
        "resamples": 20,
        "wordings": False,
        "base_draws": 2,
        "healed_draws": 1,
    },
}
METHODS = ("healed_round", "sft", "steering")
DEPTH = 3
"""layers of the tiny model"""


def made_cheap(put: Any = setattr) -> None:
    """`models.load` gives the tiny model, built anew each time; and a page's figures, which write nothing and are half of
    a run's seconds, aren't drawn. `put` sets an attribute: a test's is undone after it."""
    tok = build_tokenizer()
    put(models, "load", lambda _name, **_how: (build_model(len(tok), tok.eos_token_id, depth=DEPTH), tok))
    put(canvas, "svg", lambda *_a, **_how: Markup("<svg></svg>"))


def run(out: Path | str, **settings: Any) -> Path:
    """A new run's folder in `out`."""
    return loop.run(**(SETTINGS | {"out": str(out)} | settings)).folder.path


MADE: dict[str, Path] = {}


def shared(folders: Any) -> Path:
    """One round's unbroken run, made once a session in pytest's `tmp_path_factory`; nobody may change it."""
    if "run" not in MADE:
        MADE["run"] = run(folders.mktemp("whole"), rounds=1)
    return MADE["run"]


def comparison(out: Path | str, **settings: Any) -> dict[str, Any]:
    """A comparison in `out`, begun or gone on with."""
    grid = Grid(scales=(0.5, 1.0), doses=(0.5, 1.0))
    return compare.run(out=out, seeds=1, methods=METHODS, grid=grid, **(SETTINGS | settings))


OF_THE_CLOCK = re.compile(r'"(?:seconds|peak_memory_gb)": (?:\{[^{}]*\}|[0-9.e+-]+|null),?')
PASSED_OVER = {"events.jsonl", "report.html", "compare.html", ".lock"}
MAY_DIFFER = [
    "events.jsonl: the times, and how often a sitting began; the finished steps and their files' hashes are compared",
    "report.html, compare.html: they show those times, and the folder's name",
    "*.json: the values of seconds and peak_memory_gb",
    ".lock: empty, there or not",
]
"""what differs between two unbroken runs as well"""


def contents(folder: Path) -> dict[str, bytes | str]:
    """Every file of a run or a comparison by its name, without what may differ."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in PASSED_OVER]
    return {str(p.relative_to(folder)): timeless(p) for p in files}


def timeless(file: Path) -> bytes | str:
    raw = file.read_bytes()
    return OF_THE_CLOCK.sub("", raw.decode("utf-8", "replace")) if file.suffix == ".json" else raw


OF_THE_PLACE = {
    "config.toml": re.compile(rb"(?m)^out = .*$"),
    "manifest.json": re.compile(r'"config.toml": "\w+"'),
}
"""what differs between runs in two places: `out`, and the hash of the file that says it"""


def differing(ours: Path, right: Path, *, elsewhere: bool = False) -> list[str]:
    """Files that differ, or that only one has; of runs begun `elsewhere` also what says where."""
    a, b = contents(ours), contents(right)
    for found in (a, b) if elsewhere else ():
        for name in found:
            if place := OF_THE_PLACE.get(Path(name).name):
                found[name] = place.sub(type(found[name])(), found[name])  # type: ignore[arg-type]
    return [name for name in sorted(a.keys() | b.keys()) if a.get(name) != b.get(name)]
