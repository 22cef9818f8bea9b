"""A run as logs of Inspect, one for each model that it measured, so that Inspect's viewer opens them.

In: a run's record. Out: a `.eval` file a stage (base, prompt, and every round's steered and healed model) in a folder.
Samples are what the model itself wrote, and the held-out probes with the answers that were compared. A sample's scores
are the run's own values for it; the results are the run's means with their intervals. Undefined values are left out.
What the viewer asks of a log: each model is a task of its own, or its list shows the newest alone, as the last try of one
task; and all results have the same metrics, or its head shows an odd one. So a mean without an interval goes to the metadata.
Needs the extra: pip install 'steer-heal-love[inspect]'. Source: https://inspect.aisi.org.uk (`inspect_ai.log`).
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from steer_heal_love.ground import records
from steer_heal_love.ground.declared import declared
from steer_heal_love.ground.errors import UserError
from steer_heal_love.nouns import Json, Score, Stage
from steer_heal_love.report.read import RunRecord

BY_PROMPT = ("own_nll", "repetition", "distinct_2")
"""items of the instruments that read a model's own samples, one a prompt"""
BY_PROBE = ("trait", "nll_pos", "nll_neg")
HALVES = {"all": slice(None), "search": slice(0, None, 2), "report": slice(1, None, 2)}
"""which of a persona's probes a run's `eval.probe_half` names"""


def package() -> tuple[Any, Any, Any]:
    """Inspect's log, model and scorer modules. Raises `UserError` where it is not installed."""
    try:
        names = ("log", "model", "scorer")
        log, model, scorer = (importlib.import_module(f"inspect_ai.{n}") for n in names)
    except ImportError as e:
        raise UserError(
            f"inspect_ai cannot be imported ({e}); pip install 'steer-heal-love[inspect]'."
        ) from e
    return log, model, scorer


def write(run: RunRecord, out: Path) -> list[Path]:
    """A log a stage in the folder `out`. Raises `UserError` without the extra, and where nothing was measured yet."""
    log, _, _ = package()
    if not run.stages:
        raise UserError(f"{run.path}: nothing was measured yet; go on with shl run --resume.")
    with records.writing(out):
        out.mkdir(parents=True, exist_ok=True)
    files = []
    for i, stage in enumerate(run.stages):
        file = out / f"{began(run):%Y-%m-%dT%H-%M-%S}+00-00_{slug(run)}_{i:02d}{slug_of(stage)}.eval"
        with records.writing(file):
            log.write_eval_log(log_of(run, stage), str(file))
        files.append(file)
    return files


def began(run: RunRecord) -> datetime:
    """When the run began, by its log."""
    first = next((e["t"] for e in run.events if isinstance(e.get("t"), int | float)), 0.0)
    return datetime.fromtimestamp(float(first), UTC)


def slug(run: RunRecord) -> str:
    kept = "".join(c if c.isalnum() else "-" for c in str(run.persona.get("name", "run")))
    return kept[:40] or "run"


def slug_of(stage: Stage) -> str:
    return stage.stage + ("" if stage.round < 0 else str(stage.round))


def called(stage: Stage) -> str:
    """What a stage's model is called, such as `healed, round 2`."""
    dose = "" if stage.dose is None else f" at dose {stage.dose:.2f}"
    return stage.stage + ("" if stage.round < 0 else f", round {stage.round}") + dose


def log_of(run: RunRecord, stage: Stage) -> Any:
    """One stage as a log: what was measured on what, every sample, every mean."""
    log, _, _ = package()
    samples = [*own(run, stage), *probes(run, stage)]
    stamp = began(run).isoformat()
    manifest = run.manifest
    commit = manifest.get("commit")
    spec = log.EvalSpec(
        created=stamp,
        task=slug(run),
        task_id=f"{run.name}-{slug_of(stage)}",
        run_id=run.name,
        eval_id=f"{run.name}-{slug_of(stage)}",
        model=f"shl/{run.config.get('model', 'unknown')}: {called(stage)}",
        dataset=log.EvalDataset(name=slug(run), samples=len(samples), sample_ids=[s.id for s in samples]),
        config=log.EvalConfig(),
        packages={k: str(v) for k, v in dict(manifest.get("versions", {})).items()},
        revision=log.EvalRevision(type="git", origin="", commit=commit, dirty=manifest.get("dirty"))
        if commit
        else None,
        metadata={
            "persona": run.persona,
            "round": stage.round,
            "stage": stage.stage,
            "dose": stage.dose,
            "run": run.name,
            "model_hash": manifest.get("model_hash"),
            "device": manifest.get("device"),
            "settings": run.config,
            "gates": [vars(g) for g in run.gates],
            "means without an interval": alone(stage),
        },
    )
    return log.EvalLog(
        status="success",
        eval=spec,
        plan=log.EvalPlan(name=f"steer-heal-love, {called(stage)}"),
        samples=samples,
        results=log.EvalResults(
            total_samples=len(samples), completed_samples=len(samples), scores=means(stage)
        ),
        stats=log.EvalStats(started_at=stamp, completed_at=stamp),
    )


def ended(s: Score) -> bool:
    """Whether the mean and both ends of its interval are defined."""
    return all(map(math.isfinite, (s.mean, s.lo, s.hi)))


def alone(stage: Stage) -> dict[str, float]:
    """The defined means that have no interval."""
    return {name: s.mean for name, s in stage.scores.items() if math.isfinite(s.mean) and not ended(s)}


def means(stage: Stage) -> list[Any]:
    """Every score with a defined 95% interval."""
    log, _, _ = package()
    out = []
    place = lambda name: declared[name].place if name in declared else math.inf
    for name in sorted(stage.scores, key=place):
        s = stage.scores[name]
        if not ended(s):
            continue
        about = declared[name].means if name in declared else ""
        parts = {"mean": s.mean, "lo": s.lo, "hi": s.hi}
        metrics = {k: log.EvalMetric(name=k, value=v) for k, v in parts.items()}
        out.append(
            log.EvalScore(
                name=name, scorer=name, metrics=metrics, scored_samples=s.n, metadata={"means": about}
            )
        )
    return out


def scored(stage: Stage, names: tuple[str, ...], n: int, i: int, answer: str | None = None) -> Json:
    """A sample's own values: of each named item, where there is one a sample and it is defined."""
    _, _, scorer = package()
    values: Mapping[str, list[float]] = stage.items
    return {
        name: scorer.Score(value=float(values[name][i]), answer=answer)
        for name in names
        if len(values.get(name, ())) == n and math.isfinite(values[name][i])
    }


def own(run: RunRecord, stage: Stage) -> Iterator[Any]:
    """What the model wrote itself. Its scores are means over the draws of a prompt."""
    log, model, _ = package()
    system = run.system_prompt if stage.stage == "prompt" else ""
    for i, s in enumerate(stage.samples):
        before = [model.ChatMessageSystem(content=system)] if system else []
        asked = [*before, model.ChatMessageUser(content=str(s["prompt"]))]
        output = model.ModelOutput.from_content(
            called(stage), str(s["text"]), "stop" if s.get("ended") else "max_tokens"
        )
        yield log.EvalSample(
            id=f"own-{i + 1:03d}",
            epoch=1,
            input=asked,
            target="",
            messages=[*asked, output.message],
            output=output,
            scores=scored(stage, BY_PROMPT, len(stage.samples), i, str(s["text"])),
            metadata={
                "kind": "written by the model",
                "other draws": [d["text"] for d in stage.redrawn if d["prompt"] == s["prompt"]],
            },
        )


def probes(run: RunRecord, stage: Stage) -> Iterator[Any]:
    """The held-out questions with both answers, whose likelihoods were compared; nothing was written to them."""
    log, model, _ = package()
    n = len(stage.items.get("trait", ()))
    half = str(run.config.get("eval", {}).get("probe_half", "all"))
    rows = run.persona.get("confirmation" if half == "confirmation" else "probes", [])[
        HALVES.get(half, slice(None))
    ]
    for i, row in enumerate(rows[:n]):
        yield log.EvalSample(
            id=f"probe-{i + 1:03d}",
            epoch=1,
            input=str(row["question"]),
            target=str(row["pos"]),
            choices=[row["pos"], row["neg"]],
            messages=[model.ChatMessageUser(content=str(row["question"]))],
            output=model.ModelOutput(model=called(stage)),
            scores=scored(stage, BY_PROBE, n, i),
            metadata={
                "kind": "probe: likelihoods of two given answers",
                "pos": row["pos"],
                "neg": row["neg"],
            },
        )
