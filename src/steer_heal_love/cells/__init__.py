"""A sweep: every persona × method × seed × model of a file, each cell measured once, wherever there are workers.

In: a TOML file (`spec`), a folder, an executor (`executors`). Out: the folder (`store`): a cell's record under the address
of everything it depends on (`keys`), so that a sweep goes on after any kill, takes more of any axis, and measures nothing
twice; a comparison for every persona and model over its seeds and methods, by `compare.summary`; one page of all of them.

spec      the file
plan      cells, and benches: what the cells of one persona, model and seed share
keys      addresses
store     the folder
work      a bench's cells, in a worker
schedule  benches to an executor, lost ones again
together  cells to comparisons
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from steer_heal_love import executors
from steer_heal_love.cells import plan, spec, together
from steer_heal_love.cells.plan import Bench
from steer_heal_love.cells.schedule import Schedule, Watch
from steer_heal_love.ground import records
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.folder import enclosed
from steer_heal_love.ground.lock import locked
from steer_heal_love.ground.shown import shown

SHOWN = 10
"""failed cells that a message names"""


@dataclass(frozen=True)
class Asked:
    """A sweep ready to begin: its file read, its cells addressed."""

    spec: spec.Spec
    benches: list[Bench]


def asked(file: Path, *, executor: str = "", workers: int = 0, trust_remote_code: bool = False) -> Asked:
    """What a sweep's file asks for; `executor` and `workers` in place of the file's. Raises `UserError` with every mistake."""
    found = spec.read(file, trust_remote_code=trust_remote_code)
    found = replace(found, executor=executor or found.executor, workers=workers or found.workers)
    try:
        return Asked(found, plan.made(found, trust_remote_code=trust_remote_code))
    except UserError as e:
        raise UserError(f"sweep file {shown(file)}: {e}") from e


def run(sweep: Asked, out: Path, watch: Watch = lambda _states: None) -> None:
    """Measure what isn't there, then write the report of everything. `watch` is told of every cell about once a second.

    Raises `UserError` before anything is written when the executor isn't ready or the folder holds something else; and
    at the end where cells failed: the report is then of the personas and models that have all of theirs.
    """
    root, told = out.resolve(), sweep.spec
    refuse_other(root)
    ready = executors.Asked(told.workers, told.cluster, root)
    with executors.opened(told.executor, ready) as executor:
        with records.writing(out):
            root.mkdir(parents=True, exist_ok=True)
        with locked(root):
            records.write_json(root / "plan.json", planned(sweep))
            failed = Schedule(sweep.benches, told.grid, root, executor, watch).through()
            together.write(sweep.benches, told.grid, root)
    if failed:
        raise UserError(complaint(sweep.benches, failed))


def planned(sweep: Asked) -> dict[str, object]:
    """What the folder says of itself: the cells by their addresses."""
    cells = [{"bench": b.key, **vars(c)} for b in sweep.benches for c in b.cells]
    return {"schema": records.SCHEMA, "kind": "sweep", "cells": cells}


def refuse_other(root: Path) -> None:
    """Raise `UserError` unless the folder is new, empty, or a sweep's."""
    if root.exists() and not root.is_dir():
        raise UserError(f"{shown(root)}: a file; --out takes a folder.")
    if not root.is_dir():
        return
    if (root / "plan.json").is_file() and (root / "cells").is_dir():
        return enclosed(root)
    if any(not p.name.startswith(".") and p.name != "plan.json" for p in root.iterdir()):
        raise UserError(f"{shown(root)}: holds something else than a sweep; take another folder.")


def complaint(benches: list[Bench], failed: dict[str, str]) -> str:
    cells = [c for b in benches for c in b.cells if c.key in failed]
    lines = [f"  {c.persona}, {c.method}, seed {c.seed}, {c.model}: {failed[c.key]}" for c in cells[:SHOWN]]
    more = [f"  and {len(cells) - SHOWN} more"] if len(cells) > SHOWN else []
    return "\n".join(
        [
            f"{len(cells)} cell{'s' * (len(cells) > 1)} failed; the same shl sweep does what failed again:",
            *lines,
            *more,
        ]
    )


__all__ = ["Asked", "asked", "run"]
