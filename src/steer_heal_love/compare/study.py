"""The order of the work: for each seed its base, then every method's cells, then what follows from them.

    DIR/
      plan.json                       what the cells were measured with; another plan is refused
      seeds/<S>/                      an ordinary run folder: base/, rounds/, report.html; and
        told/                         text of the base told to be either pole
        methods/<METHOD>/             a method's own log and adapters
          <STRENGTH>/scores.json      one cell
      compare.json, frontier.png, compare.html

Each cell is measured once: what lies there is read. Seeds, methods and strengths may be added to a folder.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from steer_heal_love import base, executors, presets, replicas, report, steps
from steer_heal_love.compare import bench, summary
from steer_heal_love.compare.directions import by_name
from steer_heal_love.compare.method import Cell, Method, Trace, methods
from steer_heal_love.config import PLACES, Cluster, Grid, RunConfig
from steer_heal_love.executors import Executor
from steer_heal_love.ground import folder as files
from steer_heal_love.ground import identity, models, records
from steer_heal_love.ground.chat import template_hash
from steer_heal_love.ground.errors import Diverged, Starved, UserError
from steer_heal_love.ground.folder import RunFolder, enclosed
from steer_heal_love.ground.lock import locked
from steer_heal_love.ground.progress import Track, silent
from steer_heal_love.ground.untrusted import json_object
from steer_heal_love.nouns import Json, Stage
from steer_heal_love.persona import load as load_persona
from steer_heal_love.persona import path as persona_path
from steer_heal_love.session import Run, Session, begun, ignored, known, loaded

NEEDED = ("neutral", "probes", "samples")
"""instruments that a frontier is made of"""
BESIDE = ("own_kl", "text_auc")
"""and what is read beside it, where no instruments are named"""


def run(
    settings: RunConfig | None = None,
    *,
    out: str | Path,
    seeds: int = 3,
    methods: tuple[str, ...] = (),
    grid: Grid | None = None,
    workers: int = 1,
    executor: str = "local",
    cluster: Cluster | None = None,
    track: Track = silent,
    **overrides: Any,
) -> Json:
    """Measure every named method (all when none is) in `seeds` seeds from the settings' own on, and compare.

    Goes on with what lies in `out`. With `workers` above 1, as many seeds at a time, each with a model of its own, in
    processes here or wherever the `executor` has them (`executors`). Raises `UserError` before anything is written when anything is wrong. Returns what `compare.json` holds.
    """
    out, grid = Path(out), grid or Grid()
    cfg, chosen = wanted(settings, overrides, seeds, methods, grid)
    if workers < 1:
        raise UserError(f"workers: at least 1, found {workers}.")
    executors.executors[executor]  # told now, before anyone waits for a model
    if cluster:
        cluster.check()
    agree(out, plan(cfg))
    if out.is_dir():
        with locked(out):
            pass  # told now, before anyone waits for a model
    asked = executors.Asked(workers, cluster or Cluster(), out.resolve())
    alone = executor == "local" and workers == 1
    with nullcontext() if alone else executors.opened(executor, asked) as hands:
        model, tok = loaded(cfg, track)
        with records.writing(out):
            out.mkdir(parents=True, exist_ok=True)
        with locked(out):
            return measured_all(replace(cfg, out=str(out)), model, tok, seeds, chosen, grid, hands, track)


def measured_all(
    cfg: RunConfig,
    model: Any,
    tok: Any,
    seeds: int,
    chosen: list[Method],
    grid: Grid,
    hands: Executor | None,
    track: Track,
) -> Json:
    """The whole comparison, by the only process that writes to its folder, `cfg.out`."""
    out = Path(cfg.out)
    agreed = plan(cfg) | {"model_hash": models.fingerprint(model)}
    agree(out, agreed)
    records.write_json(out / "plan.json", agreed)
    each = [replace(cfg, seed=seed) for seed in range(cfg.seed, cfg.seed + seeds)]
    if hands:
        spread(each, tuple(m.name for m in chosen), grid, hands, track)
    bases: dict[int, Stage] = {}
    traces: list[Trace] = []
    for mine in each:
        bases[mine.seed], found_here = of_seed(mine, model, tok, chosen, grid, track)
        traces += found_here
    found = summary.of(traces, bases, grid, cfg.eval.resamples)
    found |= {"persona": load_persona(cfg.persona).name, "model": cfg.model}
    RunFolder(out).still_there()
    records.write_json(out / "compare.json", found)
    report.write_comparison(out)
    return found


def of_seed(
    cfg: RunConfig, model: Any, tok: Any, chosen: list[Method], grid: Grid, track: Track
) -> tuple[Stage, list[Trace]]:
    """One seed's base and every method's cells, measured or read back."""
    session = seeded(cfg, model, tok, Path(cfg.out) / "seeds" / str(cfg.seed), track)
    with session.folder.locked():
        r = Run.on(session, base.measured(session))
        return r.stages[0], [trace(m, r, grid) for m in chosen]


def spread(each: list[RunConfig], names: tuple[str, ...], grid: Grid, hands: Executor, track: Track) -> None:
    """Measure whole seeds at a time, a worker each; what they made lies in the folder, which all of them see."""
    out = str(Path(each[0].out).resolve())
    work = {
        f"seed {cfg.seed}": partial(alone, replace(cfg, out=out), names, grid, hands.threads) for cfg in each
    }
    with track("seeds", len(each)) as advance:
        executors.finished(hands, work, advance)


def alone(cfg: RunConfig, names: tuple[str, ...], grid: Grid, threads: int) -> None:
    """One seed in this process."""
    if threads:
        torch.set_num_threads(threads)
    of_seed(cfg, *loaded(cfg), [named(name) for name in names], grid, silent)


def named(name: str) -> Method:
    """A method of the registry, or one that a name with a colon stands for (`compare.directions`)."""
    return by_name(name) if ":" in name else methods[name]


def wanted(
    settings: RunConfig | None, overrides: Json, seeds: int, names: tuple[str, ...], grid: Grid
) -> tuple[RunConfig, list[Method]]:
    """Settings and methods. Raises `UserError` for whatever cannot be compared."""
    cfg = presets.resolved(overrides, settings)
    replicas.refuse(cfg, "a comparison; it measures several seeds at a time with --workers")
    load_persona(cfg.persona)
    if seeds < 1:
        raise UserError(f"seeds: at least 1, found {seeds}.")
    chosen = [named(name) for name in dict.fromkeys(names or tuple(methods))]
    grid.check()
    if missing := [n for n in NEEDED if n not in (cfg.eval.instruments or NEEDED)]:
        raise UserError(
            f"eval.instruments: a frontier needs {', '.join(NEEDED)}; missing: {', '.join(missing)}."
        )
    if cfg.eval.sample_prompts < 1:
        raise UserError(f"eval.sample_prompts: at least 1 for a frontier, found {cfg.eval.sample_prompts}.")
    cfg = replace(cfg, eval=replace(cfg.eval, instruments=cfg.eval.instruments or (*NEEDED, *BESIDE)))
    cfg.check()
    known(cfg)
    return cfg, chosen


def trace(method: Method, r: Run, grid: Grid) -> Trace:
    """Every cell of a method in a seed, measured or read back."""
    on = bench.opened(r, r.folder.path / "methods" / method.name.replace(":", "-"), grid)
    cells, stopped, own = [], "", None
    try:
        for cell in method.cells(on):
            file = on.folder.path / f"{cell.strength:g}" / "scores.json"
            make = partial(measured, method, r, cell)
            (stage,) = on.folder.once(
                "evaluate", file, files.load_stages, files.save_stages, make, strength=cell.strength
            )
            cells.append((cell.strength, stage))
            own = cell.strength if cell.own else own
    except (Starved, Diverged) as e:
        stopped = str(e)
        on.folder.event("stopped", reason=stopped)
    return Trace(method, r.config.seed, cells, stopped, sum(on.folder.seconds().values()), own)


def measured(method: Method, r: Run, cell: Cell) -> list[Stage]:
    """The cell's one stage, under its own name in the progress."""
    if cell.stage:
        return [cell.stage]
    label = f"{method.name} at {cell.strength:g}"
    named = replace(r, track=lambda _label, total: r.track(label, total))
    draws = r.config.eval.healed_draws
    return [
        steps.evaluated(named, method.kind, -1, *cell.contexts, dose=cell.dose, draws=draws, **cell.given)
    ]


def seeded(cfg: RunConfig, model: Any, tok: Any, path: Path, track: Track) -> Session:
    """The seed's run: begun in its folder, or the one that lies there."""
    if not (path / "manifest.json").is_file():
        with records.writing(path):
            path.mkdir(parents=True, exist_ok=True)
        return begun(cfg, model, tok, RunFolder(path), track)
    folder = RunFolder.open(path)
    folder.check()
    same_settings(cfg, path)
    was = identity.of_run(path)
    identity.check(model, tok, was, where=path, name=cfg.model, warn=ignored)
    if template_hash(tok) != was.template:
        raise UserError(
            f"{path}: was begun with another chat template than {cfg.model!r} has now; delete it to have it measured again."
        )
    return Session(cfg, load_persona(str(path / "persona.toml")), model, tok, folder, track)


def same_settings(cfg: RunConfig, path: Path) -> None:
    """Raise `UserError` unless the run at `path` was begun with these settings, wherever things lay then: the persona's
    text is in the run folder, and its manifest names the weights."""
    had = presets.read(path / "config.toml", trust_remote_code=cfg.trust_remote_code)
    elsewhere = ("out", "persona", "model", "template", "trust_remote_code", *PLACES)
    if replace(had, **{name: getattr(cfg, name) for name in elsewhere}) != cfg:
        raise UserError(
            f"{path}: was begun with other settings than the comparison has; delete it to have it measured again."
        )


def plan(cfg: RunConfig) -> Json:
    """What makes cells comparable: the same persona file, the same settings."""
    persona = records.hash_text(persona_path(cfg.persona).read_text(encoding="utf-8"))
    settings = {k: v for k, v in asdict(cfg).items() if k not in ("out", *PLACES)}
    return {"schema": records.SCHEMA, "kind": "compare", "persona_hash": persona, **records.plain(settings)}


def agree(out: Path, plan: Json) -> None:
    """Raise `UserError` unless `out` is new, empty, or was measured by this plan."""
    file = out / "plan.json"
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: a file; --out takes a folder.")
    if not file.is_file():
        if out.is_dir() and any(not p.name.startswith(".") for p in out.iterdir()):
            raise UserError(
                f"{out}: holds something else than a comparison (no plan.json); take another folder."
            )
        return
    enclosed(out)
    had = json_object(file, str(file)).data
    other = [f"  {k}: {had.get(k)!r} there, {v!r} asked for" for k, v in plan.items() if had.get(k) != v]
    if other:
        raise UserError(
            f"{out}: holds a comparison by another plan; take another folder, or ask for that one.\n"
            + "\n".join(other)
        )
