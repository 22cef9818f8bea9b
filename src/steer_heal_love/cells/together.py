"""A sweep's cells to its report: a comparison for each persona and model, over its seeds and methods.

Read from the folder alone: no model is loaded. What depends on the clock stays out of `sweep.json`, so that it says the same
however the work was spread and interrupted. A persona and model that lack a cell have no comparison, and are named.
"""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path

from steer_heal_love import report
from steer_heal_love.cells.plan import Bench
from steer_heal_love.cells.store import Store
from steer_heal_love.compare import summary
from steer_heal_love.config import Grid
from steer_heal_love.ground import records
from steer_heal_love.nouns import Json
from steer_heal_love.persona import load as load_persona


def write(benches: list[Bench], grid: Grid, root: Path) -> None:
    """Each group's folder, then `sweep.json` and `sweep.html`."""
    store = Store(root)
    groups = [list(g) for _, g in groupby(benches, lambda b: (b.cells[0].model, b.cells[0].persona))]
    names = folders([of(g) for g in groups])
    rows = []
    for group, folder in zip(groups, names, strict=True):
        persona, model = of(group)
        lacking = sum(store.record(b, c) is None for b in group for c in b.cells)
        rows.append({"persona": persona, "model": model, "folder": folder, "lacking": lacking})
        if not lacking:
            records.write_json(root / folder / "compare.json", compared(group, grid, store))
            report.write_comparison(root / folder)
    cells = sum(len(b.cells) for b in benches)
    records.write_json(
        root / "sweep.json", {"schema": records.SCHEMA, "kind": "sweep", "cells": cells, "groups": rows}
    )
    report.write_sweep(root)


def of(group: list[Bench]) -> tuple[str, str]:
    """A group's persona and model."""
    return group[0].cells[0].persona, group[0].cells[0].model


def folders(groups: list[tuple[str, str]]) -> list[str]:
    """A folder a group, named after its persona and model; numbered where two would have the same."""
    out: list[str] = []
    for persona, model in groups:
        name = re.sub(r"[^A-Za-z0-9.-]+", "-", f"{Path(model).name}-{Path(persona).stem}").strip(".-")[:80]
        same = sum(n.partition("~")[0] == f"groups/{name}" for n in out)
        out.append(f"groups/{name}" + (f"~{same + 1}" if same else ""))
    return out


def compared(group: list[Bench], grid: Grid, store: Store) -> Json:
    """What `compare.json` holds of a persona and a model."""
    bases = {b.cells[0].seed: store.measured_base(b) for b in group}
    traces = [store.trace(b, c, row) for b in group for c in b.cells if (row := store.record(b, c))]
    found = summary.of(traces, bases, grid, group[0].config.eval.resamples)
    return found | {"persona": load_persona(group[0].config.persona).name, "model": of(group)[1]}
