"""The story: steer, filter, heal, bake, evaluate, and again on the healed student.

Each step is done once: its result lies in the run folder, and a resumed run reads it back instead. This file
hands things from room to room and logs; it computes nothing itself.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from steer_heal_love import bake, report, steps
from steer_heal_love.config import RunConfig
from steer_heal_love.gates.loop import stop_reason
from steer_heal_love.ground import folder as files
from steer_heal_love.ground import identity, models, records
from steer_heal_love.ground.errors import Diverged, Starved, resumable
from steer_heal_love.ground.identity import Warn
from steer_heal_love.ground.progress import Show, Track, labelled, silent, unseen
from steer_heal_love.nouns import Adapter, Completion, Look
from steer_heal_love.session import Run, created, ignored, opened
from steer_heal_love.vector import Vector


def run(
    settings: RunConfig | None = None,
    *,
    resume: str | Path | None = None,
    track: Track = silent,
    warn: Warn = ignored,
    show: Show = unseen,
    **overrides: Any,
) -> Run:
    """The whole loop. `overrides` are RunConfig fields, nested ones as dicts; the preset follows the device. `warn` is
    told what a resumed run's base has other than then. `show` is told what the base, each steered and each healed model
    answer to one question, as soon as they can.

    Raises `UserError` before anything is written when the settings, persona or model are wrong, and `Starved`
    or `Diverged` with everything up to the last good round in the folder. Ctrl-C says how to go on.
    """
    if resume:
        r = opened(Path(resume), track, trust_remote_code=bool(overrides.get("trust_remote_code")), warn=warn)
    else:
        r = created(settings, overrides, track)
    r.show = show
    with resumable(f"shl run --resume {shlex.quote(str(r.folder.path))}"), r.folder.locked():
        r.folder.event("start", resumed=bool(resume))
        first = extracted(r, 0)
        looked(r, 0, "first", lambda: steps.first_look(r, first))
        steps.before(r)
        return rounds(r)


def rounds(r: Run) -> Run:
    """Every round on a run whose base has been measured; ends early where the text is past the floor or nothing is gained."""
    track = r.track
    try:
        for number in range(r.config.rounds):
            r.track = labelled(track, f"round {number}")
            one_round(r, number)
            if stop := stop_reason(r.evidence, r.config.patience):
                r.folder.event("stop", round=number, reason=stop)
            conclude(r, goes_on=not stop and number + 1 < r.config.rounds)
            if stop:
                break
    except (Starved, Diverged) as e:
        r.folder.event(type(e).__name__.lower(), reason=str(e))
        conclude(r)
        raise
    finally:
        r.track = track
    r.folder.event("end", gates={g.gate: g.verdict for g in r.gates})
    return r


def one_round(r: Run, number: int) -> None:
    """Vector → completions → adapter → scores, on the student that the earlier rounds made."""
    here, once = r.folder.round(number), r.folder.once
    vector, completions = steered(r, number)
    r.rounds.append(row := steps.counted(r, number, vector, completions))
    if row["starved"]:
        raise Starved(
            f"round {number}: {row['used']} completions survived the filter, {r.config.filter.least} are needed. "
            "The report says why the others fell; what was healed before is kept."
        )
    adapter, row["healing"] = healed(r, number, [c for c in completions if c.used], vector)
    r.history = [*r.history, adapter]
    looked(r, number, "look", lambda: steps.look(r, number, vector, row["dose"]))
    r.stages += once(
        "evaluate", here / "scores.json", files.load_stages, files.save_stages,
        lambda: steps.scored(r, number, vector, row["dose"]), round=number,
    )  # fmt: skip
    if r.config.eval.transfer != "off":
        control = steps.control(r) if r.config.eval.transfer == "full" else None
        row["transfer"] = once(
            "transfer", here / "transfer.json", records.read_json, files.save_json,
            lambda: steps.got_in(r, number, vector, control), round=number,
        )  # fmt: skip


def steered(r: Run, number: int) -> tuple[Vector, list[Completion]]:
    """The round's vector, and every completion made with it, judged."""
    vector, path = extracted(r, number), r.folder.round(number) / "completions.jsonl"
    return vector, r.folder.once(
        "generate", path, files.load_completions, files.save_completions,
        lambda: steps.sample_and_filter(r, number, vector), round=number,
    )  # fmt: skip


def extracted(r: Run, number: int) -> Vector:
    """The round's vector, read from the student as it stands. Round 0's needs nothing but the base."""
    path = r.folder.round(number) / "vector.safetensors"
    return r.folder.once("vector", path, Vector.load, Vector.save, lambda: steps.steer(r), round=number)


def looked(r: Run, number: int, name: str, make: Callable[[], list[Look]]) -> None:
    """Answers to one question, shown as soon as they are there, and shown again by a resumed run."""
    path = r.folder.round(number) / f"{name}.jsonl"
    for look in r.folder.once("look", path, files.load_looks, files.save_looks, make, round=number):
        r.show(look)


def healed(r: Run, number: int, used: list[Completion], vector: Vector) -> tuple[Adapter, dict[str, Any]]:
    """The round's adapter and how its training went."""
    return r.folder.once(
        "heal", r.folder.round(number) / "healing.json", steps.load_healed, steps.save_healed,
        lambda: steps.train(r, number, used, vector), round=number,
    )  # fmt: skip


def conclude(r: Run, *, goes_on: bool = False) -> None:
    """Everything that is derived: the one adapter, the summary, the report. Written anew after each round; the report
    says whether the run `goes_on`."""
    if r.history:
        bake.save_peft(
            bake.stack(r.history), r.folder.path / "adapter", base_model=models.base_name(r.config.model),
            note=identity.of_run(r.folder.path).note(),
        )  # fmt: skip
    r.folder.event("memory", peak_memory_gb=records.peak_memory_gb(r.model.device))
    records.write_json(
        r.folder.path / "summary.json",
        {
            "schema": records.SCHEMA, "goes_on": goes_on, "persona": r.persona.name, "model": r.config.model, "seed": r.config.seed,
            "rounds": len(r.history), "stages": [{"round": s.round, "stage": s.stage, "dose": s.dose, "scores": s.scores} for s in r.stages],
            "prompt": records.read_json(r.folder.path / "base" / "wording.json"),
            "walks": [{k: v for k, v in t.items() if k != "healing"} for t in r.rounds],
            "gates": r.gates, "seconds": r.folder.seconds(), "peak_memory_gb": r.folder.peak_memory_gb(),
        },
    )  # fmt: skip
    r.folder.wrote()
    report.write([r.folder.path], r.folder.path / "report.html")
    r.folder.wrote()
