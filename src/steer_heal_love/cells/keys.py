"""The address of a cell: a hash of everything that its result depends on, so that one that is there is the one asked for.

    bench   the persona's text, the model's files, every setting, the seed, other files that settings name, this package's
            code, the libraries' versions
    cell    its bench, its method, the strengths of the grid

Not in it: where files lie, how many workers there are, the machine. A result depends on the machine by rounding alone; the
run's manifest names it. The weights are known by their files, so that whoever plans needn't load them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from steer_heal_love import evals
from steer_heal_love.config import PLACES, ConditionConfig, Grid, RunConfig
from steer_heal_love.ground import checkpoint, loading, records, shelf
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.shown import shown
from steer_heal_love.persona import path as persona_path

APART = ("cli", "gates", "report", "executors", "cells")
"""rooms that have no say in what a cell's scores are"""
FILES = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.py")
"""what a model's folder may hold that has a say"""
WHOLE = 4 << 20
"""bytes up to which a file is hashed whole; of a larger one the beginning and blocks at equal distances are"""
BLOCKS, BLOCK = 256, 4096
DIGITS = 24
ELSEWHERE = (
    "persona",
    "model",
    "template",
    "vignette_bank",
    "judge_model",
    "out",
    "trust_remote_code",
    *PLACES,
)
"""settings that are no part of the hash: of the files that they name the contents are, and where it is computed has no say"""


def digest(value: Any) -> str:
    text = json.dumps(records.plain(value), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def of_condition(c: ConditionConfig) -> str:
    """What a condition's settings name, by its contents."""
    named = Path(c.file) if c.file else persona_path(c.persona) if c.persona else None
    if named is None:
        return ""
    if not named.is_file():
        raise UserError(f"condition.file: {shown(named)} does not exist; `shl vector condition` writes one.")
    return hashlib.sha256(named.read_bytes()).hexdigest()[:DIGITS]


def bench(cfg: RunConfig) -> str:
    """The address of what the methods of one seed share."""
    settings = {k: v for k, v in asdict(cfg).items() if k not in ELSEWHERE}
    settings["eval"] = {k: v for k, v in settings["eval"].items() if k not in ELSEWHERE}
    settings["condition"] = {k: v for k, v in settings["condition"].items() if k not in ("file", "persona")}
    return digest(
        {
            "schema": records.SCHEMA,
            "persona": records.hash_text(persona_path(cfg.persona).read_text(encoding="utf-8")),
            "model": of_model(cfg.model),
            "template": text_of(cfg.template),
            "settings": settings,
            "condition": of_condition(cfg.condition),
            "judge": of_model(cfg.eval.judge_model) if cfg.eval.judge_model else "",
            "data": evals.bank_hashes(cfg.eval),
            "code": shelf.code_hash(APART),
            "versions": records.versions(),
        }
    )


def cell(bench: str, method: str, grid: Grid) -> str:
    """The address of a method's result on a bench; budgets are read off it later."""
    strengths = {k: v for k, v in asdict(grid).items() if not k.endswith("budgets")}
    return digest({"bench": bench, "method": method, "strengths": strengths})


def text_of(template: str) -> str:
    """What a template setting stands for: the text of a file, or the name itself."""
    file = Path(template)
    return file.read_text(encoding="utf-8", errors="replace") if template and file.is_file() else template


@lru_cache(maxsize=64)
def of_model(name: str) -> str:
    """A hash over the files of the model that the name stands for; those of a hub id are fetched into its cache.

    Raises `UserError` for a name under which there is no model.
    """
    where = loading.source(name)
    checkpoint.refuse_folder(where)
    if not Path(where).is_dir():
        with checkpoint.Reading(name):
            from huggingface_hub import snapshot_download

            where = snapshot_download(where, allow_patterns=list(FILES))
    files = sorted({f for pattern in FILES for f in Path(where).glob(pattern)})
    if not any(f.name == "config.json" for f in files):
        raise UserError(f"no model lies under {name!r}: no config.json. Give a name, a folder or a hub id.")
    found = hashlib.sha256()
    for file in files:
        found.update(f"{file.name}\0{file.stat().st_size}\0".encode() + sampled(file))
    return found.hexdigest()[:DIGITS]


def sampled(file: Path) -> bytes:
    """All bytes of a small file; of a large one its beginning, which names every tensor, and blocks at equal distances."""
    size = file.stat().st_size
    with file.open("rb") as f:
        if size <= WHOLE:
            return f.read()
        out = [f.read(WHOLE // 4)]
        for k in range(BLOCKS):
            f.seek(k * (size - BLOCK) // (BLOCKS - 1))
            out.append(f.read(BLOCK))
    return b"".join(out)
