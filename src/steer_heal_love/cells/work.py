"""What a worker does: a bench's cells, one after the other, each kept as it is done.

It needs nothing but the bench and the folder, and hands nothing back: whoever asked reads the folder. A worker that is
killed loses the cell under way, and of that cell only the step: the next one goes on from the files that lie there.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from steer_heal_love import base
from steer_heal_love.cells.plan import Bench
from steer_heal_love.cells.store import Store
from steer_heal_love.compare import study
from steer_heal_love.config import Grid, RunConfig
from steer_heal_love.generate import engine
from steer_heal_love.ground.progress import silent
from steer_heal_love.session import Run, loaded


def work(bench: Bench, grid: Grid, root: Path, threads: int, but: frozenset[str] = frozenset()) -> None:
    """Every cell of the bench that isn't done, but those whose addresses are in `but`."""
    store = Store(root)
    todo = [c for c in bench.cells if c.key not in but and not store.record(bench, c)]
    if not todo:
        return
    store.began(
        todo[0]
    )  # before the model is loaded and the base measured: who dies of that dies of this cell
    if threads:
        torch.set_num_threads(threads)
    session = study.seeded(bench.config, *held(bench.config), store.bench(bench), silent)
    with session.folder.locked():
        run = Run.on(session, base.measured(session))
        for i, cell in enumerate(todo):
            if i:
                store.began(cell)
            store.done(bench, cell, study.trace(study.named(cell.method), run, grid))


LOADED = ("model", "device", "dtype", "memory", "template", "trust_remote_code", "split")
"""settings that say which model is loaded, and where"""


def held(cfg: RunConfig) -> tuple[Any, Any]:
    """The model, kept from one bench of this process to the next of the same model."""
    engine.allow(cfg)
    model, tok = held_as(replace(RunConfig(), **{name: getattr(cfg, name) for name in LOADED}))
    engine.fit(cfg.generate, model)
    return model, tok


@lru_cache(maxsize=1)
def held_as(cfg: RunConfig) -> tuple[Any, Any]:
    return loaded(cfg)
