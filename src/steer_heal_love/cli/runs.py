"""The two verbs whose options are every setting: `run` and `compare`."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import tyro

from steer_heal_love import presets
from steer_heal_love.cli.screen import importing, out, say, tell, warn
from steer_heal_love.config import PLACES, Cluster, Grid, RunConfig
from steer_heal_love.ground.errors import UserError, resumable
from steer_heal_love.ground.overrides import override
from steer_heal_love.persona import load as load_persona

G = TypeVar("G", bound=RunConfig)
Preset = Literal["auto", "demo", "cpu", "gpu"]


@dataclass(frozen=True)
class Run(RunConfig):
    """Run the loop: steer, filter, heal, export, evaluate, and repeat. Every setting can be given by its name."""

    resume: Path | None = None
    """continue the run in this folder, with the settings that it was started with"""
    fight: Path | None = None
    """instead of the loop: fine-tune on this JSONL file of prompts and answers, or chat messages, without learning the
    persona's neg pole from it; the report says what was prevented, and what was still learned"""
    choice: Path | None = None
    """a sweep.json of `shl vector sweep`, whose choice of steering method and layers is taken"""
    config: Path | None = None
    """settings from a TOML file, such as a run's config.toml"""
    preset: Preset = "auto"
    """settings to start from (`shl list presets`); auto takes gpu on CUDA and cpu elsewhere"""


@dataclass(frozen=True)
class Compare(RunConfig):
    """Run every method at rising strengths, and compare their trait at equal drift and at equal oddness.

    Continues with the results that are in --out. Every setting of a run can be given by its name; --seed is the first seed.
    """

    out: str = "compare"
    """the folder of the comparison"""
    seeds: int = 3
    """how many seeds, from --seed on"""
    methods: tuple[str, ...] = ()
    """methods to compare; empty means all (`shl list comparisons`)"""
    workers: int = 1
    """number of seeds measured at the same time, each in its own process with its own model; more than one helps on a GPU"""
    executor: str = "local"
    """who measures them: local (processes here), ray or submitit (SLURM)"""
    cluster: Cluster = dataclasses.field(default_factory=Cluster)
    grid: Grid = dataclasses.field(default_factory=Grid)
    config: Path | None = None
    """settings from a TOML file, such as a run's config.toml"""
    preset: Preset = "auto"
    """settings to start from (`shl list presets`); auto takes gpu on CUDA and cpu elsewhere"""


def run(argv: list[str]) -> None:
    """Parse, run the loop, print its screen."""
    argv = spelled(argv, Run)
    if _early(argv, "resume"):
        given = tyro.cli(Run, args=argv, prog="shl run")
        placed = {name: getattr(given, name) for name in PLACES if _early(argv, name) is not None}
        if given != Run(resume=given.resume, trust_remote_code=given.trust_remote_code, **placed):
            raise UserError(
                "--resume goes on with the settings the run was started with; give no others but --trust-remote-code, "
                "--replicas, --split and --ray."
            )
        settings = None
    else:
        given, settings = layered(Run, argv, "shl run")
        placed = {}
    if given.choice and settings:
        settings = with_choice(settings, given.choice)
    if given.fight or (given.resume and (given.resume / "fight" / "rows.jsonl").is_file()):
        return vaccinate(given, settings, placed)
    with importing():
        from steer_heal_love import loop, report

    if given.resume and finished(given.resume):
        say(f"{given.resume}: already finished, nothing is left to do", "dim")
        show(given.resume)
        return
    trust = {"trust_remote_code": given.trust_remote_code} if given.resume else {}
    told = presets.read(given.resume / "config.toml", **trust) if given.resume else settings
    seen = lambda answer: out.print(report.preview(answer, out.width), soft_wrap=not out.is_terminal)
    with report.progress(out, told) as track:
        done = loop.run(settings, resume=given.resume, track=track, warn=warn, show=seen, **trust, **placed)
    show(done.folder.path)


def with_choice(settings: RunConfig, file: Path) -> RunConfig:
    """The settings with the method and the layers that a sweep chose for this persona and model."""
    from steer_heal_love.sweep import load_choice

    persona = load_persona(settings.persona).name
    return override(settings, {"vector": load_choice(file, persona=persona, model=settings.model)})


def vaccinate(given: Run, settings: RunConfig | None, placed: dict[str, Any]) -> None:
    """Fine-tune on somebody's data with prevention and without, print what came of it. `placed`: settings of where to
    compute that a resumed run is given anew."""
    with importing():
        from steer_heal_love import fight, report

    again = given.resume and f"shl run --resume {shlex.quote(str(given.resume))}"
    with (
        report.progress(out, settings) as track,
        resumable(again or "shl run --resume, with the newest run folder"),
    ):
        if given.fight:
            done = fight.run(settings, given.fight, track=track)
        elif given.resume:
            trust = given.trust_remote_code
            done = fight.resumed(given.resume, track=track, trust_remote_code=trust, warn=warn, **placed)
    out.print(report.terminal_fight(done.folder.path), soft_wrap=not out.is_terminal)


def finished(path: Path) -> bool:
    """Whether nothing is left to do there. Raises `UserError` for files that are not the run's own."""
    from steer_heal_love.ground.folder import RunFolder

    if not (path / "manifest.json").exists() and (path / "config.toml").is_file():
        return False  # killed while it began
    folder = RunFolder.open(path)
    folder.check()
    return folder.ended


def show(path: Path) -> None:
    """The run's screen; whole sentences where no terminal cuts them."""
    from steer_heal_love import report

    out.print(report.terminal(path, cut=out.is_terminal), soft_wrap=not out.is_terminal)


def compare(argv: list[str]) -> None:
    """Parse, compare, print the table."""
    argv = spelled(argv, Compare)
    given, settings = layered(Compare, argv, "shl compare", out=Compare.out)
    with importing():
        from steer_heal_love import compare as comparison
        from steer_heal_love import report

    with report.progress(out) as track, resumable("the same shl compare"):
        comparison.run(
            settings,
            out=given.out,
            seeds=given.seeds,
            methods=given.methods,
            grid=given.grid,
            workers=given.workers,
            executor=given.executor,
            cluster=given.cluster,
            track=track,
        )
    out.print(report.terminal_comparison(Path(given.out)))
    tell(Path(given.out) / "compare.html")


def layered(kind: type[G], argv: list[str], prog: str, **own: Any) -> tuple[G, RunConfig]:
    """What was asked for: preset, then the settings file, `own`, then options; and the run's settings in it."""
    early = {key: _early(argv, key) for key in ("config", "preset", "device", "model")}
    if early["config"]:
        start = presets.read(Path(early["config"]), trust_remote_code="--trust-remote-code" in argv)
    elif early["preset"] in presets.PRESETS:
        start = presets.preset(early["preset"])
    else:
        start = presets.fitting(early["device"] or RunConfig.device, early["model"] or RunConfig.model)
    fields = {f.name: getattr(start, f.name) for f in dataclasses.fields(start)}
    given = tyro.cli(kind, args=argv, default=kind(**(fields | own)), prog=prog)
    settings = RunConfig(**{name: getattr(given, name) for name in fields})
    settings.check()
    load_persona(settings.persona)  # told now, before anyone waits for torch
    return given, settings


SHORT = {"engine": "generate.engine"}
"""options that have a short name besides that of their setting"""


def spelled(argv: list[str], kind: type[RunConfig]) -> list[str]:
    """The words with short names of options written out, where the command has no option of that name itself."""
    own = {f.name for f in dataclasses.fields(kind)}
    out = list(argv)
    for short, name in SHORT.items():
        if short not in own:
            out = [
                f"--{name}{w[len(short) + 2 :]}" if w.partition("=")[0] == f"--{short}" else w for w in out
            ]
    return out


def _early(argv: list[str], key: str) -> str | None:
    """The value of an option that decides the defaults of the others."""
    for i, word in enumerate(argv):
        if word == f"--{key}" and i + 1 < len(argv):
            return argv[i + 1]
        if word.startswith(f"--{key}="):
            return word.partition("=")[2]
    return None
