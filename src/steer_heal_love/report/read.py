"""Read a run folder, however far it came, into what the report shows.

In: a run folder. Out: a `RunRecord` of plain values; what an unfinished run has not written yet is empty.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from steer_heal_love.ground import folder as files
from steer_heal_love.ground import made, records, written
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.folder import RunFolder
from steer_heal_love.ground.shown import shown
from steer_heal_love.ground.stats import wilson
from steer_heal_love.ground.untrusted import MEGABYTE, shaped, toml
from steer_heal_love.nouns import Completion, Gate, Json, Score, Stage
from steer_heal_love.report.borderline import Border, borderline
from steer_heal_love.report.bounds import ROWS, STAGES, thinned


@dataclass(frozen=True)
class Share:
    """Coherent share of n completions at one dose, with its 95% Wilson interval."""

    dose: float
    share: float
    lo: float
    hi: float
    n: int


@dataclass(frozen=True)
class Round:
    """One round: what the filter counted, what lay near its cut, how the heal went."""

    number: int
    survival: list[Share]
    counts: dict[str, int]
    reasons: dict[str, int]
    kept: list[Border]
    dropped: list[Border]
    walk: Json
    healing: Json | None
    transfer: Json | None = None

    @property
    def dose(self) -> float:
        return number(self.walk.get("dose"))


@dataclass(frozen=True)
class RunRecord:
    """Everything the report says of one run."""

    path: Path
    config: Json
    config_text: str
    manifest: Json
    persona: Json
    summary: Json
    stages: list[Stage]
    rounds: list[Round]
    events: list[Json]
    lost: list[str]
    """files that the log says were made, and that are gone"""
    wording: Json
    """the system prompt that the base was told by, and the wordings it was chosen from; empty in older runs"""

    @property
    def system_prompt(self) -> str:
        return str(self.wording.get("system") or f"You are {self.persona.get('pos', '–')}.")

    @property
    def wordings(self) -> int:
        return len(self.wording.get("tried", []))

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @cached_property
    def gates(self) -> list[Gate]:
        known = Gate.__dataclass_fields__
        return [Gate(**{k: v for k, v in g.items() if k in known}) for g in self.summary.get("gates", [])]

    @property
    def healed(self) -> list[Stage]:
        return [s for s in self.stages if s.stage == "healed"]

    @property
    def goes_on(self) -> bool:
        """Whether more rounds were to come when the summary was written."""
        return bool(self.summary.get("goes_on"))

    def stage(self, name: str, round: int = -1) -> Stage | None:
        return next((s for s in self.stages if s.stage == name and s.round == round), None)

    @cached_property
    def seconds(self) -> dict[str, float]:
        """Seconds by room over every sitting, the longest first."""
        spent: dict[str, float] = {}
        for e in self.events:
            if e["event"] == "done" and isinstance(e.get("room"), str):
                spent[e["room"]] = spent.get(e["room"], 0.0) + made.seconds(e)
        return dict(sorted(spent.items(), key=lambda item: -item[1]))

    @property
    def ended(self) -> bool:
        """Whether the run came to an end, as it was meant to or not."""
        return any(e["event"] in ("starved", "diverged", "stop", "end") for e in self.events)

    @cached_property
    def notes(self) -> list[str]:
        """What the run itself had to say: why it stopped first, then what it warned of."""
        said = {
            "starved": lambda e: f"Starved: {e.get('reason')}",
            "diverged": lambda e: f"Training diverged: {e.get('reason')}",
            "stop": lambda e: f"Stopped after round {e.get('round')}: {e.get('reason')}",
            "warning": lambda e: (
                f"{'Round {}: '.format(e['round']) if 'round' in e else ''}{e.get('message')}"
            ),
        }
        told = list(
            dict.fromkeys(say(e) for kind, say in said.items() for e in self.events if e["event"] == kind)
        )
        if self.lost:
            told.append(
                f"Gone since they were made: {made.listed(self.lost)}. `shl run --resume` makes them again."
            )
        return told


def score(stage: Stage | None, name: str) -> Score:
    """A stage's score, undefined where it was not measured."""
    return Score.undefined() if stage is None else stage.scores.get(name, Score.undefined())


def number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def read(path: Path, *, ours: bool = False) -> RunRecord:
    """The record of the run at `path`; its files are not compared with what was logged where the run is `ours`.

    Raises `UserError` when there is none, of another layout, and for files that no run, or not this one, wrote.
    """
    folder = RunFolder.open(path)
    if not ours:
        folder.check(derived=True)
    summary = made.read(summarised, path / "summary.json")
    bounds = made.read(bounded, path / "base" / "bounds.json")
    checks = made.read(partial(optional, like=written.CHECKS), path / "base" / "checks.json")
    walks = {w["round"]: w for w in summary.get("walks", [])}
    stages: list[Stage] = []
    for file in [path / "base" / "scores.json", *sorted(path.glob("rounds/*/scores.json"))]:
        stages += made.read(files.load_stages, file) if file.is_file() else []
    few_enough(stages, path)
    rounds = [
        read_round(folder, bounds, checks, walks.get(int(folder.name), {}))
        for folder in sorted(
            (f for f in path.glob("rounds/*") if f.name.isdecimal()), key=lambda f: int(f.name)
        )
    ]
    return RunRecord(
        path,
        made.read(partial(table, like=written.CONFIG), path / "config.toml"),
        made.read(text, path / "config.toml"),
        made.read(optional, path / "manifest.json"),
        made.read(partial(table, like=written.PERSONA), path / "persona.toml"),
        summary,
        sorted(stages, key=lambda s: s.round),
        rounds,
        folder.event.read(),
        # Those that are worked out of the others are being written.
        [name for name in folder.lost() if not (ours and name in made.DERIVED)],
        made.read(partial(optional, like=written.WORDING), path / "base" / "wording.json"),
    )


def read_round(folder: Path, bounds: dict[str, float], checks: Json, walk: Json) -> Round:
    file = folder / "completions.jsonl"
    completions = made.read(files.load_completions, file) if file.is_file() else []
    kept, dropped = borderline(completions, bounds, checks)
    return Round(
        number=int(folder.name),
        survival=survival(completions),
        counts={
            "made": len(completions),
            "coherent": sum(c.coherent for c in completions),
            "kept": sum(c.kept for c in completions),
            "used": sum(c.used for c in completions),
        },
        reasons=dict(Counter(reason for c in completions for reason in c.reasons).most_common()),
        kept=kept,
        dropped=dropped,
        walk=walk,
        healing=made.read(healed, folder / "healing.json") or None,
        transfer=made.read(transferred, folder / "transfer.json") or None,
    )


def few_enough(stages: list[Stage], path: Path) -> None:
    if len(stages) > STAGES:
        raise UserError(
            f"{shown(path)}: {len(stages):,} stages, where a run of this tool has two a round; at most {STAGES:,} are shown."
        )


def survival(completions: list[Completion]) -> list[Share]:
    """The coherent share at each dose above 0, of a few hundred doses at most."""
    by_dose: dict[float, list[bool]] = {}
    for c in completions:
        by_dose.setdefault(c.dose, []).append(c.coherent)
    return [share(dose, by_dose[dose]) for dose in thinned(sorted(d for d in by_dose if d > 0), ROWS)]


def share(dose: float, coherent: list[bool]) -> Share:
    """The coherent share at one dose."""
    found, n = sum(coherent) / len(coherent), len(coherent)
    return Share(dose, found, *wilson(found, n), n)


def optional(path: Path, like: Any = dict) -> Json:
    """A JSON object made like `like`, or an empty one where the run has not come that far."""
    return shaped(records.read_json(path), like) if path.is_file() else {}  # type: ignore[no-any-return]


def table(path: Path, like: Any = dict) -> Json:
    """A TOML table made like `like`, or an empty one."""
    return shaped(toml(path, str(path), most=4 * MEGABYTE).data, like) if path.is_file() else {}  # type: ignore[no-any-return]


def summarised(path: Path) -> Json:
    return optional(path, written.SUMMARY)


def healed(path: Path) -> Json:
    return shaped(written.renamed(optional(path)), written.HEALING) if path.is_file() else {}  # type: ignore[no-any-return]


def transferred(path: Path) -> Json:
    found = optional(path, written.TRANSFER) if path.is_file() else {}
    return written.same_length(found)


def bounded(path: Path) -> dict[str, float]:
    return {k: number(v) for k, v in optional(path, written.BOUNDS).items()}


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8-sig") if path.is_file() else ""
