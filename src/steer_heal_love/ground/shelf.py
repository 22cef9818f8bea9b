"""What earlier runs worked out of the pristine base, kept by what it depends on: answers, and the base's own scores.

In: a step's file in a run folder, and everything that decides what is in it. Out: the same bytes again, when an earlier
run left them. The key hashes the weights, the chat template, the settings, this package's code, the libraries'
versions and the processor; a file's name also hashes what is in it, and one that was changed since is not read.
`STEER_HEAL_LOVE_CACHE=off` reads and keeps nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steer_heal_love.ground import embedded, models, records
from steer_heal_love.ground.chat import template_hash

MOST = 128
"""files kept; those that were not read for longest go first"""
APART = ("cli", "compare", "gates", "report", "bake", "executors", "cells")
"""rooms that have no say in what the base answers or scores"""


def on() -> bool:
    return os.environ.get("STEER_HEAL_LOVE_CACHE", "on") != "off"


def folder() -> Path:
    return embedded.cache_dir() / "base"


@lru_cache(maxsize=4)
def code_hash(apart: tuple[str, ...] = APART) -> str:
    """Over every file of this package outside the rooms `apart`; without any, over those that may change what the base
    answers or scores."""
    root = Path(__file__).parents[1]
    files = (f for f in sorted(root.rglob("*")) if f.suffix in (".py", ".toml", ".txt", ".jsonl"))
    digest = hashlib.sha256()
    for file in files:
        name = file.relative_to(root)
        if name.parts[0] not in apart:
            digest.update(str(name).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def key(model: PreTrainedModel, tok: PreTrainedTokenizerBase, what: str, **decides: Any) -> str:
    """The name of what this model gives for `what`, given all that `decides` it (JSON-ready, or dataclasses)."""
    parts = {
        "what": what,
        "weights": models.fingerprint(model),
        "dtype": str(model.dtype),
        "template": template_hash(tok),
        "tokenizer": tokenizer_hash(tok, len(tok)),
        "config": model.config.to_json_string(use_diff=False),
        "generation": str(getattr(model, "generation_config", None)),
        "device": records.device_name(model.device),
        "versions": records.versions(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "code": code_hash(),
        "decides": records.plain(decides),
    }
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@lru_cache(maxsize=4)
def tokenizer_hash(tok: PreTrainedTokenizerBase, _tokens: int) -> str:
    """Of what a tokenizer is: its serialised form, or else its whole vocabulary. Made once for a tokenizer of so many
    tokens, since the form has megabytes."""
    backend = getattr(tok, "backend_tokenizer", None)
    text = backend.to_str() if backend is not None else repr(sorted(tok.get_vocab().items()))
    return records.hash_text(text)


def fetch(name: str, path: Path) -> bool:
    """Put what was kept under `name` at `path`, byte by byte; False where nothing sound is there, or the shelf is off."""
    for kept in folder().glob(f"{name}-*") if on() else ():
        if kept.is_file() and kept.name == file_name(name, kept):
            try:
                with records.whole(path) as scratch:
                    shutil.copyfile(kept, scratch)
            except FileNotFoundError:
                continue  # pruned by another process meanwhile
            with contextlib.suppress(OSError):  # a cache that is another user's, or read-only
                os.utime(kept)
            return True
    return False


def keep(name: str, path: Path) -> None:
    """Keep the file at `path` under `name`. A disk that refuses costs nothing but the next run's time."""
    if not on() or any(folder().glob(f"{name}-*")):
        return
    try:
        folder().mkdir(parents=True, exist_ok=True)
        scratch = folder() / f".{os.getpid()}-{name}"
        shutil.copyfile(path, scratch)
        os.replace(scratch, folder() / file_name(name, path))
        prune()
    except OSError:
        return


def file_name(name: str, file: Path) -> str:
    """What a kept file is called: its key, and a hash of what is in it."""
    return f"{name}-{hashlib.sha256(file.read_bytes()).hexdigest()[:16]}"


def prune() -> None:
    """Drop what was not read for longest."""
    kept = sorted((f for f in folder().iterdir() if f.is_file()), key=lambda f: f.stat().st_mtime)
    for file in kept[: max(len(kept) - MOST, 0)]:
        file.unlink(missing_ok=True)
