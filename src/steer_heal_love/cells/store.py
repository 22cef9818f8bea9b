"""A sweep's folder: what is done, what is under way, and who does it.

    DIR/
      plan.json               the cells by their addresses
      benches/<BENCH>/        an ordinary run folder, as a seed's of a comparison (`compare.study`)
      cells/<CELL>.json       the cell's record, written when it is done
      cells/<CELL>.jsonl      its log: began and done, when and by whom, a line each time
      groups/<MODEL>-<PERSONA>/   compare.json, compare.html, frontier.png of all seeds and methods
      sweep.json, sweep.html

A record names the files that it stands for, with their hashes; one whose files are not those is no record.
"""

from __future__ import annotations

import os
import socket
from dataclasses import asdict
from pathlib import Path

from steer_heal_love.cells.plan import Bench, Cell
from steer_heal_love.compare import study
from steer_heal_love.compare.method import Trace
from steer_heal_love.ground import folder as folders
from steer_heal_love.ground import made, records
from steer_heal_love.ground.untrusted import NUMBER, json_object, shaped
from steer_heal_love.nouns import Json, Stage

RECORD = {
    "schema": int,
    "key": str,
    "bench": str,
    "persona": str,
    "model": str,
    "seed": int,
    "method": str,
    "stopped": str,
    "seconds": float,
    "own": NUMBER,
    "strengths": [float],
    "files": {str: str},
}


class Store:
    """The folder, from any process that works in it."""

    def __init__(self, root: Path):
        self.root = root

    def bench(self, bench: Bench) -> Path:
        return self.root / "benches" / bench.key

    def log(self, cell: Cell) -> records.Events:
        return records.Events(self.root / "cells" / f"{cell.key}.jsonl")

    def began(self, cell: Cell) -> None:
        """Note that this process begins the cell now."""
        with records.writing(self.root / "cells"):
            (self.root / "cells").mkdir(parents=True, exist_ok=True)
        self.log(cell)("began", who=who())

    def begun(self, cell: Cell) -> list[Json]:
        """Every time that the cell was begun."""
        return [e for e in self.log(cell).read() if e["event"] == "began"]

    def done(self, bench: Bench, cell: Cell, trace: Trace) -> None:
        """Keep what a method reached on a bench."""
        paths = [self.scores(bench, cell, strength) for strength, _ in trace.cells]
        row = {
            "schema": records.SCHEMA,
            "bench": bench.key,
            **asdict(cell),
            "stopped": trace.stopped,
            "own": trace.own,
        }
        row |= {"seconds": round(trace.seconds, 3), "strengths": [float(s) for s, _ in trace.cells]}
        files = made.hashes(self.root, [*paths, self.base(bench)])
        self.log(cell)("done", who=who())  # first: whoever finds the record finds its time as well
        records.write_json(self.file(cell), row | {"files": files})

    def file(self, cell: Cell) -> Path:
        return self.root / "cells" / f"{cell.key}.json"

    def base(self, bench: Bench) -> Path:
        return self.bench(bench) / "base" / "scores.json"

    def scores(self, bench: Bench, cell: Cell, strength: float) -> Path:
        return self.bench(bench) / "methods" / cell.method.replace(":", "-") / f"{strength:g}" / "scores.json"

    def record(self, bench: Bench, cell: Cell) -> Json | None:
        """The cell's record, or None where there is none, or one of other files than those that lie there."""
        file = self.file(cell)
        if not file.is_file():
            return None
        row = made.read(
            lambda f: shaped(json_object(f, str(f)).data, RECORD),
            file,
            "Delete it, and the same `shl sweep` makes it again.",
        )
        paths = [self.base(bench), *(self.scores(bench, cell, s) for s in row["strengths"])]
        return row if row["key"] == cell.key and made.hashes(self.root, paths) == row["files"] else None

    def trace(self, bench: Bench, cell: Cell, row: Json) -> Trace:
        """What a record stands for, read from its files."""
        stage = lambda s: self.stages(self.scores(bench, cell, s))[0]
        cells = [(s, stage(s)) for s in row["strengths"]]
        return Trace(study.named(cell.method), cell.seed, cells, row["stopped"], row["seconds"], row["own"])

    def measured_base(self, bench: Bench) -> Stage:
        return next(s for s in self.stages(self.base(bench)) if s.stage == "base")

    def stages(self, path: Path) -> list[Stage]:
        return made.read(folders.load_stages, path, "Delete it, and the same `shl sweep` makes it again.")


def who() -> str:
    """This process, as a person would look for it."""
    return f"{socket.gethostname()}:{os.getpid()}"
