"""From what a sweep's file says to its cells: a cell is a persona, a method, a seed and a model.

The methods of one persona, model and seed share a bench (`compare.bench`): the base measured, the steering vector, the
first round's text. So a bench is what one worker does, cell after cell, and a cell is what is kept, counted and done again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from steer_heal_love.cells import keys
from steer_heal_love.cells.spec import Spec
from steer_heal_love.compare import study
from steer_heal_love.config import Grid, RunConfig


@dataclass(frozen=True)
class Cell:
    """One cell by its axes, and its address."""

    persona: str
    model: str
    seed: int
    method: str
    key: str


@dataclass(frozen=True)
class Bench:
    """What one worker does: the cells of a persona, a model and a seed, with the settings they share."""

    key: str
    config: RunConfig
    cells: tuple[Cell, ...]


def made(spec: Spec, *, trust_remote_code: bool = False) -> list[Bench]:
    """Every bench, in the order of the axes. Raises `UserError` for whatever cannot be measured."""
    out = []
    for model in spec.models:
        for persona in spec.personas:
            cfg = spec.run(persona, model, trust_remote_code=trust_remote_code)
            cfg, chosen = study.wanted(cfg, {}, 1, spec.methods, spec.grid)
            names = [m.name for m in chosen]
            out += [bench(replace(cfg, seed=s), persona, model, names, spec.grid) for s in spec.seeds]
    return out


def bench(cfg: RunConfig, persona: str, model: str, methods: list[str], grid: Grid) -> Bench:
    key = keys.bench(cfg)
    cells = tuple(Cell(persona, model, cfg.seed, m, keys.cell(key, m, grid)) for m in methods)
    return Bench(key, replace(cfg, persona=absolute(persona), model=absolute(model), template=absolute(cfg.template)), cells)  # fmt: skip


def absolute(name: str) -> str:
    """A file's or folder's whole path, which a worker elsewhere finds too; any other name as it is."""
    path = Path(name)
    return str(path.resolve()) if name and (path.is_dir() or (path.is_file() and path.suffix)) else name
