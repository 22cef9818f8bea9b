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
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.shown import shown


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
    refuse_same(out)
    return out


def refuse_same(benches: list[Bench]) -> None:
    """Raise `UserError` where two names of an axis stand for the same: their cells would be the same cells."""
    first: dict[str, Cell] = {}
    for b in benches:
        mine, other = b.cells[0], first.setdefault(b.key, b.cells[0])
        if other is not mine:
            raise UserError(
                f"axes: {shown(other.persona)} in {shown(other.model)} and {shown(mine.persona)} in {shown(mine.model)} are "
                "the same persona and model under two names; leave one out."
            )


def bench(cfg: RunConfig, persona: str, model: str, methods: list[str], grid: Grid) -> Bench:
    key = keys.bench(cfg)
    cells = tuple(Cell(persona, model, cfg.seed, m, keys.cell(key, m, grid)) for m in methods)
    e, c = cfg.eval, cfg.condition
    e = replace(e, vignette_bank=absolute(e.vignette_bank), judge_model=absolute(e.judge_model))
    c = replace(c, file=absolute(c.file), persona=absolute(c.persona))
    cfg = replace(cfg, persona=absolute(persona), model=absolute(model), template=absolute(cfg.template))
    return Bench(key, replace(cfg, eval=e, condition=c), cells)


def absolute(name: str) -> str:
    """A file's or folder's whole path, which a worker elsewhere finds too; any other name as it is."""
    path = Path(name)
    return str(path.resolve()) if name and (path.is_dir() or (path.is_file() and path.suffix)) else name
