"""The run folder: what is written where, and reading it back.

Every step goes through `RunFolder.once`: a result that lies there is read, a missing one is made, timed, saved, and
read back too. That is all there is to resuming a run, and why a resumed one goes on with the very numbers that an
unbroken one does.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from steer_heal_love.ground import lock, made, records, team, written
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.shown import shown
from steer_heal_love.ground.untrusted import inside, json_object, shaped
from steer_heal_love.nouns import Completion, Json, Preview, Score, Stage, Tokens

T = TypeVar("T")


class RunFolder:
    """One run's files, laid out as the contract in the README says."""

    def __init__(self, path: Path):
        self.path = path
        self.inode = inode(path)
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
        """An existing run, wherever it was moved or copied to.

        Raises `UserError` when it is none, of another version of the layout, or when a link leads out of it.
        """
        manifest = path / "manifest.json"
        if not manifest.is_file():
            raise UserError(f"{shown(path)}: no run there (no manifest.json){runs_inside(path)}.")
        enclosed(path)
        schema = json_object(manifest, str(manifest)).data.get("schema")
        if schema != records.SCHEMA or isinstance(schema, bool):
            raise UserError(
                f"{path}: written with run-folder version {schema!r:.60}, this is version {records.SCHEMA}; "
                "use the version of the tool that wrote it. Nothing was changed."
            )
        return cls(path)

    def locked(self) -> AbstractContextManager[None]:
        """Hold the folder as its only writer. Raises `UserError` where another one does."""
        return lock.locked(self.path)

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
        """What lies at `path`, or what `make` makes, saved there and logged with its seconds; read from there either way.

        Raises `UserError` where what lies there can't be read, and when the folder has gone since.
        """
        if not made.whole(path):
            began = time.perf_counter()
            value = make()
            self.still_there()
            with records.writing(path):
                save(value, path)
            for part in made.parts(path):
                team.same_file(part)
            self.finished(room, path, round(time.perf_counter() - began, 3), **fields)
            records.release_memory()
        elif not self.knows(path):
            # A kill came between the file and its event. The seconds went with the process.
            self.finished(room, path, None, found=True, **fields)
        return made.read(load, path)

    def finished(self, room: str, path: Path, seconds: float | None, **fields: Any) -> None:
        """Log that a step is done, with its files' hashes; and warn where it is done again and came out otherwise."""
        now = made.hashes(self.path, made.parts(path))
        known = self.hashes()
        if other := [n for n, value in now.items() if known.get(n, value) != value]:
            self.event(
                "warning",
                **fields,
                message=(
                    f"{made.listed(other)}: made again, and not to the byte what it was; later steps that were there already "
                    "were made with the first one."
                ),
            )
        self.event(
            "done", room=room, file=str(path.relative_to(self.path)), seconds=seconds, files=now, **fields
        )

    def still_there(self) -> None:
        """Raise `UserError` when the folder was moved or deleted: what is written now would lie in a new one, as what was being
        written then may."""
        if not self.path.is_dir() or self.inode != inode(self.path):
            raise UserError(
                f"{shown(self.path)}: the folder is gone since the run began; nothing is written there."
            )

    def done(self) -> list[Json]:
        """Every `done` event that names its room."""
        return [e for e in self.event.read() if e["event"] == "done" and isinstance(e.get("room"), str)]

    def knows(self, path: Path) -> bool:
        """Whether the log says that the step of this file is done."""
        name = str(path.relative_to(self.path))
        return any(e.get("file") == name for e in self.done())

    def hashes(self) -> made.Hashes:
        """What the steps' files were when they were last made, by name."""
        return {k: v for e in self.done() for k, v in made.named(e.get("files")).items()}

    def derived(self) -> made.Hashes:
        """What was last worked out of them, by name."""
        wrote = [made.named(e.get("files")) for e in self.event.read() if e["event"] == "wrote"]
        return wrote[-1] if wrote else {}

    def wrote(self, names: Sequence[str] = made.DERIVED) -> None:
        """Log the hashes of what was worked out of the steps: of these files as they are now, of the others as logged."""
        now = made.hashes(self.path, [self.path / name for name in names])
        others = {name: was for name, was in self.derived().items() if name not in names}
        self.event("wrote", files={**others, **now})

    def given(self) -> made.Hashes:
        """What the settings and the persona were when the run began, by name."""
        file = self.path / "manifest.json"
        return made.named(json_object(file, str(file)).data.get("files")) if file.is_file() else {}

    def lost(self) -> list[str]:
        """Files that the run began with or that the log says were made, and that are gone."""
        names = {**self.given(), **self.hashes(), **self.derived()}
        return sorted(n for n in made.named(names) if not (self.path / n).is_file())

    def changed(self) -> list[str]:
        """Files of steps that are not what this run wrote, with its settings and its persona."""
        last = {str(e.get("file")): made.named(e.get("files")) for e in self.done()}
        steps = [n for files in last.values() for n in made.differing(self.path, files)]
        return [
            n for name, was in self.given().items() for n in made.differing(self.path, {name: was})
        ] + steps

    def stale(self) -> list[str]:
        """Derived files that are not what was last worked out; the next sitting writes them anew."""
        return [n for name, was in self.derived().items() for n in made.differing(self.path, {name: was})]

    def check(self, *, derived: bool = False) -> None:
        """Raise `UserError` for files that are not what this run wrote; `derived` ones too where they will be read."""
        if found := self.changed():
            raise UserError(
                f"{shown(self.path)}: not what this run wrote: {made.listed(found)}. Put back what it wrote; or delete a "
                "step's file, and `shl run --resume` makes it again. Nothing was changed."
            )
        if derived and (found := [n for n in self.stale() if n not in made.PAGES]):
            raise UserError(
                f"{shown(self.path)}: not what this run wrote last: {made.listed(found)}. `shl run --resume` writes "
                "it anew from the steps' own files."
            )

    @property
    def ended(self) -> bool:
        """Whether the run came to its end, and all that it wrote is still there; one that starved or diverged did not."""
        if not any(e["event"] == "end" for e in self.event.read()):
            return False
        return not self.lost() and not self.stale()

    def peak_memory_gb(self) -> float:
        """The most memory that any sitting of this run took."""
        logged = (e.get("peak_memory_gb") for e in self.event.read() if e["event"] == "memory")
        return max((v for v in logged if isinstance(v, int | float)), default=0.0)

    def seconds(self) -> dict[str, float]:
        """Seconds by room over every sitting of this run; those of a step whose log a kill took are not known."""
        out: dict[str, float] = {}
        for e in self.done():
            out[e["room"]] = round(out.get(e["room"], 0.0) + made.seconds(e), 3)
        return out


def runs_inside(folder: Path) -> str:
    """The newest runs in a folder that is none, as the end of a message about it; nothing where there are none."""
    runs = sorted((p.parent.name for p in folder.glob("*/manifest.json")), reverse=True)
    return f"; the newest in it: {made.listed(runs[:3])}" if runs else ""


def inode(folder: Path) -> tuple[int, int] | None:
    """What tells a folder from another one of its name; None where there is none."""
    with contextlib.suppress(OSError):
        found = folder.stat()
        return found.st_dev, found.st_ino
    return None


def enclosed(folder: Path) -> None:
    """Raise `UserError` for a link in `folder` that leads out of it: a file there would be someone else's."""
    for path in folder.rglob("*"):
        if path.is_symlink():
            inside(folder, path)


def save_config(config: Any, path: Path) -> None:
    records.write_text(path, tomli_w.dumps(records.plain(asdict(config))))


def save_completions(completions: list[Completion], path: Path) -> None:
    records.write_jsonl(
        path,
        [
            {
                "prompt": c.prompt,
                "prompt_ids": c.tokens.prompt,
                "ids": c.tokens.answer,
                "text": c.text,
                "dose": c.dose,
                "ended": c.ended,
                "checks": c.checks,
                "verdict": "kept" if c.kept else "dropped",
                "reasons": c.reasons,
                "coherent": c.coherent,
                "used": c.used,
            }
            for c in completions
        ],
    )


def load_completions(path: Path) -> list[Completion]:
    return [
        Completion(
            r["prompt"],
            Tokens(tuple(r["prompt_ids"]), tuple(r["ids"])),
            r["text"],
            r["dose"],
            r["ended"],
            {k: float("nan") if v is None else v for k, v in r["checks"].items()},
            r["reasons"],
            r["coherent"],
            r["used"],
        )
        for r in shaped(records.read_jsonl(path), [written.COMPLETION])
    ]


def save_json(value: Any, path: Path) -> None:
    records.write_json(path, value)


def load_previews(path: Path) -> list[Preview]:
    return [Preview(**row) for row in shaped(records.read_jsonl(path), [written.PREVIEW])]


def save_previews(previews: list[Preview], path: Path) -> None:
    records.write_jsonl(path, previews)


def save_stages(stages: Iterable[Stage], path: Path) -> None:
    records.write_json(path, {"schema": records.SCHEMA, "stages": list(stages)})


def load_stages(path: Path) -> list[Stage]:
    return [stage_of(s) for s in shaped(records.read_json(path), written.STAGES)["stages"]]


def stage_of(s: Json) -> Stage:
    """A stage as it was saved, null read back as NaN."""
    number = lambda v: float("nan") if v is None else v
    scores = {
        k: Score(number(v["mean"]), number(v["lo"]), number(v["hi"]), v["n"]) for k, v in s["scores"].items()
    }
    items = {k: [number(x) for x in v] for k, v in s["items"].items()}
    return Stage(s["round"], s["stage"], scores, items, s["samples"], s["dose"], s.get("redrawn", []))
