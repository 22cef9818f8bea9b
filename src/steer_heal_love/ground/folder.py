"""The run folder: what is written where, and reading it back.

Every step goes through `RunFolder.once`: a result that lies there is read, a missing one is made, timed and
saved. That is all there is to resuming a run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from steer_heal_love.ground import records
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.untrusted import json_object
from steer_heal_love.nouns import Completion, Look, Score, Stage, Tokens

T = TypeVar("T")


class RunFolder:
    """One run's files, laid out as the contract in the README says."""

    def __init__(self, path: Path):
        self.path = path
        self.event = records.Events(path / "events.jsonl")

    @classmethod
    def create(cls, out: Path, name: str) -> RunFolder:
        """A fresh folder `out/name`, numbered where that exists."""
        for n in range(1, 1000):
            path = out / (name if n == 1 else f"{name}-{n}")
            try:
                path.mkdir(parents=True)
                return cls(path)
            except FileExistsError:
                continue
            except OSError as e:
                raise UserError(f"cannot write under {out}: {e.strerror}.") from e
        raise UserError(f"{out / name}: a thousand runs of that name; clean up {out}.")

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run. Raises `UserError` when it is none, or of another version of the layout."""
        manifest = path / "manifest.json"
        if not manifest.is_file():
            raise UserError(f"{path}: no run there (no manifest.json).")
        schema = json_object(manifest, str(manifest)).data.get("schema")
        if schema != records.SCHEMA:
            raise UserError(
                f"{path}: written with run-folder version {schema!r:.60}, this is version {records.SCHEMA}; "
                "use the version of the tool that wrote it. Nothing was changed."
            )
        return cls(path)

    def round(self, r: int) -> Path:
        return self.path / "rounds" / f"{r:02d}"

    def once(
        self,
        room: str,
        path: Path,
        load: Callable[[Path], T],
        save: Callable[[T, Path], None],
        make: Callable[[], T],
        **fields: Any,
    ) -> T:
        """What lies at `path`, or what `make` makes, saved there and logged with its seconds."""
        if path.exists():
            return load(path)
        began = time.perf_counter()
        value = make()
        with records.writing(path):
            save(value, path)
        seconds = round(time.perf_counter() - began, 3)
        records.release_memory()
        self.event("done", room=room, file=str(path.relative_to(self.path)), seconds=seconds, **fields)
        return value

    @property
    def ended(self) -> bool:
        """Whether the run came to its end; one that starved or diverged did not."""
        return any(e["event"] == "end" for e in self.event.read())

    def peak_memory_gb(self) -> float:
        """The most memory that any sitting of this run took."""
        logged = (e["peak_memory_gb"] for e in self.event.read() if e["event"] == "memory")
        return max(logged, default=0.0)

    def seconds(self) -> dict[str, float]:
        """Seconds by room over every sitting of this run."""
        out: dict[str, float] = {}
        for e in self.event.read():
            if e["event"] == "done":
                out[e["room"]] = round(out.get(e["room"], 0.0) + e["seconds"], 3)
        return out


def save_config(config: Any, path: Path) -> None:
    records.write_text(path, tomli_w.dumps(records.plain(asdict(config))))


def save_completions(completions: list[Completion], path: Path) -> None:
    records.write_jsonl(
        path,
        [
            {
                "prompt": c.prompt, "prompt_ids": c.tokens.prompt, "ids": c.tokens.answer, "text": c.text,
                "dose": c.dose, "ended": c.ended, "checks": c.checks,
                "verdict": "kept" if c.kept else "dropped", "reasons": c.reasons,
                "coherent": c.coherent, "used": c.used,
            }
            for c in completions
        ],
    )  # fmt: skip


def load_completions(path: Path) -> list[Completion]:
    return [
        Completion(
            r["prompt"], Tokens(tuple(r["prompt_ids"]), tuple(r["ids"])), r["text"], r["dose"], r["ended"],
            {k: float("nan") if v is None else v for k, v in r["checks"].items()}, r["reasons"],
            r["coherent"], r["used"],
        )
        for r in records.read_jsonl(path)
    ]  # fmt: skip


def save_json(value: Any, path: Path) -> None:
    records.write_json(path, value)


def load_looks(path: Path) -> list[Look]:
    return [Look(**row) for row in records.read_jsonl(path)]


def save_looks(looks: list[Look], path: Path) -> None:
    records.write_jsonl(path, looks)


def save_stages(stages: Iterable[Stage], path: Path) -> None:
    records.write_json(path, {"schema": records.SCHEMA, "stages": list(stages)})


def load_stages(path: Path) -> list[Stage]:
    return [stage_of(s) for s in records.read_json(path)["stages"]]


def stage_of(s: dict[str, Any]) -> Stage:
    """A stage as it was saved, null read back as NaN."""
    number = lambda v: float("nan") if v is None else v
    scores = {
        k: Score(number(v["mean"]), number(v["lo"]), number(v["hi"]), v["n"]) for k, v in s["scores"].items()
    }
    items = {k: [number(x) for x in v] for k, v in s["items"].items()}
    return Stage(s["round"], s["stage"], scores, items, s["samples"], s["dose"], s.get("redrawn", []))
