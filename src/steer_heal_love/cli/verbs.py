"""The other verbs. Their rooms stand on torch and are imported when a verb runs, so that help doesn't wait."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import tyro

from steer_heal_love import presets
from steer_heal_love.cli import screen
from steer_heal_love.config import EvalConfig, RunConfig, VectorConfig
from steer_heal_love.ground.banks import bank
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.overrides import override
from steer_heal_love.ground.shown import shown
from steer_heal_love.ground.untrusted import inside
from steer_heal_love.persona import load as load_persona
from steer_heal_love.persona.table import LONGEST_PROMPT


def show(runs: tyro.conf.Positional[tuple[Path, ...]], /, out: Path = Path("report.html")) -> None:
    """Write one self-contained HTML report of one or more run folders."""
    from steer_heal_love import report

    if not runs:
        raise UserError("shl report: give at least one run folder.")
    report.write(list(runs), out)
    screen.tell(out)


def evaluate(
    model: str = "smollm2",
    template: str = "",
    adapter: Path | None = None,
    persona: str = "love",
    system: str | None = None,
    instrument: tuple[str, ...] = (),
    vignettes: Path | None = None,
    view: Literal["see", "you"] = EvalConfig.vignette_view,
    paraphrases: int | None = None,
    think: int = EvalConfig.think_tokens,
    lm_eval: tuple[str, ...] = (),
    neutral_bank: Literal["heldout", "sealed"] = EvalConfig.neutral_bank,
    probe_half: Literal["all", "search", "report", "confirmation"] = EvalConfig.probe_half,
    device: str = "auto",
    seed: int = 0,
    *,
    out: Path,
) -> None:
    """Measure a model with the instruments, and its base beside it (without adapter, with a neutral system prompt).

    Args:
        model: smollm2, gemma3-270m, a folder, or a hub id
        template: plain, chatml or a Jinja file instead of the model's own chat template
        adapter: a PEFT folder, such as a run's adapter/
        persona: whose held-out probes to use
        system: a system prompt instead of the neutral one
        vignettes: a JSONL bank instead of the shipped one; all of it is used
        view: whether vignettes are told of others (see) or of the reader (you)
        paraphrases: number of answer sentences for each moral foundation, at least two; the preset's number when not given
        think: tokens that the model may think before a forced choice
        lm_eval: tasks of lm-evaluation-harness to run besides (needs the extra lm-eval)
        neutral_bank: which neutral prompts drift is measured on; the sealed ones are for a claim already made
        probe_half: which probes; confirmation uses the persona's reserved probes, for a claim that is already made
        instrument: names from `shl list instruments`; every default one when none is named
        out: the JSON file to write
    """
    with screen.importing():
        from steer_heal_love import alone, evals, report
        from steer_heal_love.evals.vignettes import load_bank
        from steer_heal_love.ground import records

    if system is not None and len(system) > LONGEST_PROMPT:
        raise UserError(f"--system: {len(system)} characters, at most {LONGEST_PROMPT}.")
    start = presets.fitting(device, model)
    asked: dict[str, Any] = {
        "instruments": instrument,
        "vignette_view": view,
        "think_tokens": think,
        "neutral_bank": neutral_bank,
        "probe_half": probe_half,
    }
    asked["paraphrases"] = max(2, start.eval.paraphrases) if paraphrases is None else paraphrases
    if vignettes:
        asked |= {"vignette_bank": str(vignettes), "vignettes": len(load_bank(vignettes, view))}
    if lm_eval:
        named = (i.name for i in evals.wanted(override(start.eval, {"instruments": instrument})))
        asked |= {"instruments": tuple(dict.fromkeys((*named, "lm_eval"))), "lm_eval_tasks": lm_eval}
    of_run = {"model": model, "template": template, "persona": persona, "device": device, "seed": seed}
    cfg = override(start, of_run | {"eval": asked})
    with report.progress(screen.out) as track:
        stage = alone.evaluate(cfg, adapter=adapter, system=system, track=track, warn=screen.warn)
    records.write_json(
        out,
        {
            "schema": records.SCHEMA,
            "model": model,
            "adapter": adapter and str(adapter),
            "system": system,
            "persona": load_persona(persona).name,
            "seed": seed,
            "scores": stage.scores,
            "items": stage.items,
        },
    )
    screen.tell(out)


def load(model: str, **how: Any) -> tuple[Any, Any]:
    """The model and tokenizer, after a line that says what is waited for."""
    from steer_heal_love.ground import models

    models.known_device(how.get("device", "auto"))
    screen.say(f"loading {model}", "dim")
    return models.load(model, **how)


def vector_extract(
    persona: str = "love",
    model: str = "smollm2",
    method: str = VectorConfig.method,
    contrast: Literal["neg", "neutral"] = VectorConfig.contrast,
    layers: tuple[float, float] = VectorConfig.layers,
    contexts: int = VectorConfig.contexts,
    hook: str = VectorConfig.hook,
    device: str = "auto",
    template: str = "",
    *,
    out: Path,
) -> None:
    """Extract a persona's steering vector from a model, and save it as safetensors.

    Args:
        hook: the linear module of each layer whose output is read and steered, such as mlp.down_proj; the residual stream
            when none is named
    """
    with screen.importing():
        from steer_heal_love import vector as vectors

    who = load_persona(persona)
    vectors.methods[method]
    net, tok = load(model, device=device, template=template)
    v = vectors.Vector.train(
        net,
        tok,
        who,
        method=method,
        contrast=contrast,
        layers=layers,
        contexts=bank("contexts")[:contexts],
        hook=hook,
    )
    v.save(out)
    screen.tell(out)


def vector_convert(file: tyro.conf.Positional[Path], *, out: Path) -> None:
    """Convert a saved vector to a GGUF control vector for llama.cpp, or back: the ending of --out decides."""
    from steer_heal_love import vector as vectors
    from steer_heal_love.bake import llama_cpp

    if file.suffix == ".gguf":
        vectors.Vector(
            llama_cpp.load_control_vector(file), {"method": "GGUF control vector", "from": file.name}
        ).save(out)
    elif out.suffix == ".gguf":
        v = vectors.Vector.load(file)
        if v.place.hook or v.place.operation:
            what = (v.place.hook and f"acts at {v.place.hook}") or f"is applied by {v.place.operation}"
            raise UserError(
                f"{shown(file)}: llama.cpp adds control vectors to the residual stream; this one {what}."
            )
        llama_cpp.save_control_vector(v.directions, str(v.meta.get("model", "unknown")), out)
    else:
        raise UserError(f"shl vector convert: one of {file.name} and {out.name} must end in .gguf.")
    screen.tell(out)


def export(
    run: tyro.conf.Positional[Path],
    format: Literal["peft", "merged", "gguf", "inspect"] = "peft",
    steered: bool = False,
    dose: float | None = None,
    trust_remote_code: bool = False,
    *,
    out: Path,
) -> None:
    """Write a run's model as a PEFT adapter, as full weights or as a LoRA for llama.cpp; or its measurements for Inspect.

    Args:
        run: the run folder
        format: peft (all rounds as one adapter), merged (full weights, safetensors), gguf (a LoRA in one file in
            --out, which llama.cpp applies to the same base), inspect (a log for Inspect's viewer of each model measured)
        steered: instead of the healed model, write the base with round 0's steering vector in its biases; refused if that
            would not be exactly the steered model
        dose: the dose of --steered; the dose that round 0 found when none is given
        trust_remote_code: run code that ships with the run's model; a run folder never decides that
        out: the folder to write
    """
    if dose is not None and not steered:
        raise UserError("--dose is of --steered alone: the healed model has no dose.")
    if steered and format not in ("peft", "merged"):
        raise UserError(f"--steered writes full weights, so it has no --format {format}.")
    if format == "inspect":
        from steer_heal_love import report

        for file in report.write_inspect(run, out):
            screen.tell(file)
        return
    from steer_heal_love import bake
    from steer_heal_love.bake import llama_cpp
    from steer_heal_love.bake.merged import save_merged
    from steer_heal_love.ground import fits, identity, models
    from steer_heal_love.ground.folder import RunFolder

    folder = RunFolder.open(run)
    folder.check(derived=True)
    if not steered and not (run / "adapter").is_dir():
        raise UserError(f"{run}: no adapter yet: no round of it was healed.")
    cfg = presets.read(folder.path / "config.toml", trust_remote_code=trust_remote_code)
    was = identity.of_run(run)
    kept = run / "chat_template.jinja"
    net, tok = load(
        cfg.model,
        device="cpu",
        dtype="float32",
        trust_remote_code=cfg.trust_remote_code,
        template=str(kept) if cfg.template and kept.is_file() else cfg.template,
    )
    identity.check(net, tok, was, where=run, name=cfg.model, warn=screen.warn)
    if steered:
        from steer_heal_love.cli.steering import written

        written(net, tok, run, cfg.adapt.operation, dose, out)
        return screen.tell(out)
    adapter = bake.load_peft(inside(run, run / "adapter"))
    fits.adapter(net, adapter.factors)
    if format == "peft":
        bake.save_peft(adapter, out, base_model=models.base_name(cfg.model), note=was.note())
    elif format == "gguf":
        llama_cpp.save_lora(adapter, net.config, out / "adapter.gguf")
    else:
        save_merged(net, tok, adapter, out)
    screen.tell(out)


def doctor(
    model: str = "smollm2",
    template: str = "",
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = RunConfig.dtype,
    json: bool = False,
) -> None:
    """Check that a model can be steered, healed, evaluated and exported on this machine. Exit status 3 if a check fails.

    Args:
        model: smollm2, gemma3-270m, a folder, or a hub id
        template: plain, chatml or a Jinja file instead of the model's own chat template
        json: print the findings as JSON instead of a table
    """
    with screen.importing():
        from steer_heal_love import doctor as clinic
        from steer_heal_love import report
        from steer_heal_love.doctor.screen import screen as table
        from steer_heal_love.ground import records

    settings = override(
        presets.fitting(device, model), {"model": model, "template": template, "device": device}
    )
    net, tok = load(model, device=device, dtype=dtype, template=template)
    patient = clinic.Patient(model, net, tok, settings)
    if json:
        findings = clinic.examine(patient)
        screen.tell(records.as_json(clinic.record(patient, findings), ascii=True))
    else:
        with report.progress(screen.out) as track:
            findings = clinic.examine(patient, track)
        screen.out.print(table(patient, findings))
    if clinic.fails(findings):
        sys.exit(3)


def lint(persona: tyro.conf.Positional[str | None] = None) -> None:
    """Check a persona's file, or every shipped text: counts, lengths, duplicates, leaks from held-out text into training."""
    from steer_heal_love.persona import lint as personas

    found = personas.findings(persona) if persona else personas.findings()
    if not persona:
        from steer_heal_love.evals import lint as vignettes
        from steer_heal_love.evals import lint_capability as capability

        found += [*vignettes.findings(), *capability.findings()]
    if found:
        raise UserError("\n".join(found))
    screen.tell(f"{persona or 'banks'}: no findings")
