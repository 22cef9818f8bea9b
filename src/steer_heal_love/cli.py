"""Verbs only: parse, hand over, print. What the user can fix prints one message and exits 2, a run that ends
in a verdict against itself (starved, diverged) exits 3, and everything else is a bug and shows a traceback.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import tyro
from rich.console import Console

from steer_heal_love import bake, config, evals, heal, loop, report
from steer_heal_love import compare as comparison
from steer_heal_love import filter as sieve
from steer_heal_love import vector as vectors
from steer_heal_love.bake import llama_cpp
from steer_heal_love.compare.grid import Grid
from steer_heal_love.config import EvalConfig, RunConfig, VectorConfig
from steer_heal_love.evals import neutral
from steer_heal_love.evals.vignettes import load_bank
from steer_heal_love.ground import models, records
from steer_heal_love.ground.banks import bank
from steer_heal_love.ground.chat import end_of_turn_ids, prompt_ids
from steer_heal_love.ground.decode import sample
from steer_heal_love.ground.errors import Diverged, Starved, UserError, resumable, unknown
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.ground.weights import folded
from steer_heal_love.nouns import Adapter
from steer_heal_love.persona import load as load_persona
from steer_heal_love.persona import names as persona_names

G = TypeVar("G", bound=RunConfig)
out = Console()
err = Console(stderr=True)


@dataclass(frozen=True)
class Run(RunConfig):
    """Run the loop: steer, filter, heal, bake, evaluate, again. Any field of any room can be set."""

    resume: Path | None = None
    """go on with this run folder, with the settings it was started with"""
    config: Path | None = None
    """settings from a TOML file, such as a run's config.toml"""
    preset: Literal["auto", "cpu", "gpu"] = "auto"
    """settings to start from; auto takes gpu on CUDA and cpu elsewhere"""


@dataclass(frozen=True)
class Compare(RunConfig):
    """Trace every method's frontier of trait against coherence, and compare them at equal coherence.

    Goes on with what lies in --out. Any field of any room can be set, as for a run; --seed is the first seed.
    """

    out: str = "compare"
    """the folder of the comparison"""
    seeds: int = 3
    """how many seeds, from --seed on"""
    methods: tuple[str, ...] = ()
    """methods to compare; empty means all (`shl list comparisons`)"""
    workers: int = 1
    """seeds measured at a time, each in a process with its own model; several pay on a GPU"""
    grid: Grid = dataclasses.field(default_factory=Grid)
    config: Path | None = None
    """settings from a TOML file, such as a run's config.toml"""
    preset: Literal["auto", "cpu", "gpu"] = "auto"
    """settings to start from; auto takes gpu on CUDA and cpu elsewhere"""


def run(argv: list[str]) -> None:
    if _early(argv, "resume"):
        given = tyro.cli(Run, args=argv, prog="shl run")
        if given != Run(resume=given.resume):
            raise UserError("--resume goes on with the settings the run was started with; give no others.")
        settings = None
    else:
        given, settings = layered(Run, argv, "shl run")
    with report.progress(out) as track:
        done = loop.run(settings, resume=given.resume, track=track)
    out.print(report.terminal(done.folder.path))


def compare(argv: list[str]) -> None:
    given, settings = layered(Compare, argv, "shl compare", out=Compare.out)
    with report.progress(out) as track, resumable("the same shl compare"):
        comparison.run(
            settings, out=given.out, seeds=given.seeds, methods=given.methods, grid=given.grid,
            workers=given.workers, track=track,
        )  # fmt: skip
    out.print(report.terminal_comparison(Path(given.out)))
    out.print(Path(given.out) / "compare.html")


def layered(kind: type[G], argv: list[str], prog: str, **own: Any) -> tuple[G, RunConfig]:
    """What was asked for: preset, then the settings file, `own`, then options; and the run's settings in it."""
    early = {key: _early(argv, key) for key in ("config", "preset", "device", "model")}
    if early["config"]:
        start = config.read(Path(early["config"]))
    elif early["preset"] in config.PRESETS:
        start = config.preset(early["preset"])
    else:
        start = config.fitting(early["device"] or "auto", early["model"] or RunConfig.model)
    fields = {f.name: getattr(start, f.name) for f in dataclasses.fields(start)}
    given = tyro.cli(kind, args=argv, default=kind(**(fields | own)), prog=prog)
    return given, RunConfig(**{name: getattr(given, name) for name in fields})


def _early(argv: list[str], key: str) -> str | None:
    """The value of an option that decides the defaults of the others."""
    for i, word in enumerate(argv):
        if word == f"--{key}" and i + 1 < len(argv):
            return argv[i + 1]
        if word.startswith(f"--{key}="):
            return word.partition("=")[2]
    return None


def show(runs: tyro.conf.Positional[tuple[Path, ...]], /, out: Path = Path("report.html")) -> None:
    """Write one self-contained HTML report of one or more run folders."""
    if not runs:
        raise UserError("shl report: give at least one run folder.")
    report.write(list(runs), out)
    print(out)


def evaluate(
    model: str = "smollm2",
    adapter: Path | None = None,
    persona: str = "love",
    system: str | None = None,
    instrument: tuple[str, ...] = (),
    vignettes: Path | None = None,
    view: Literal["see", "you"] = EvalConfig.vignette_view,
    paraphrases: int | None = None,
    think: int = EvalConfig.think_tokens,
    lm_eval: tuple[str, ...] = (),
    device: str = "auto",
    seed: int = 0,
    *,
    out: Path,
) -> None:
    """Run the instruments on a model, paired with its own base (no adapter, neutral system prompt).

    Args:
        model: smollm2, a folder, or a hub id
        adapter: a PEFT folder, such as a run's adapter/
        persona: whose held-out probes to use
        system: a system prompt instead of the neutral one
        vignettes: a JSONL bank, all of which is then used, instead of the shipped one
        view: whether vignettes are told of others (see) or of the reader (you)
        paraphrases: answer sentences a foundation, instead of the preset's number (at least two)
        think: tokens that the model may think before a forced choice
        lm_eval: tasks of lm-evaluation-harness to run besides (needs the extra lm-eval)
        instrument: names from `shl list instruments`; every default one when none is named
        out: the JSON file to write
    """
    who = load_persona(persona)
    settings = config.fitting(device, model)
    asked: dict[str, Any] = {"instruments": instrument, "vignette_view": view, "think_tokens": think}
    asked["paraphrases"] = max(2, settings.eval.paraphrases) if paraphrases is None else paraphrases
    if vignettes:
        asked |= {"vignette_bank": str(vignettes), "vignettes": len(load_bank(vignettes, view))}
    settings = config.override(settings, {"eval": asked})
    if lm_eval:
        named = tuple(dict.fromkeys((*(i.name for i in evals.wanted(settings.eval)), "lm_eval")))
        settings = config.override(settings, {"eval": {"instruments": named, "lm_eval_tasks": lm_eval}})
    settings.check()
    cfg = settings.eval
    evals.ready(cfg)
    whole = bake.load_peft(adapter) if adapter else Adapter({}, 1.0)
    net, tok = load(model, device=device)
    drift = any(i.name == "neutral" for i in evals.wanted(cfg))
    prompts = bank("neutral_heldout")[: cfg.neutral_prompts if drift else 0]
    answers = sample(
        net, [prompt_ids(tok, p) for p in prompts], ends=end_of_turn_ids(net, tok), max_new_tokens=cfg.sample_tokens,
        seed=neutral.SEED, temperature=cfg.temperature, min_p=cfg.min_p,
    )  # fmt: skip
    reference = evals.neutral_reference(net, tok, prompts, answers, 4096)
    base = evals.Subject(
        net, tok, who, cfg, reference, seed=seed, draws=cfg.base_draws,
        sampling=evals.Sampling(cfg.temperature, cfg.min_p, settings.generate.batch),
    )  # fmt: skip
    subject = dataclasses.replace(base, system=system or base.system, draws=cfg.healed_draws)
    found = evals.measure(base)
    items = evals.read(base, found)
    subject = dataclasses.replace(subject, base_samples=found.get("samples", []))
    if adapter or system:
        with adapted(net, whole.factors, whole.scaling):
            found = evals.measure(subject)
    stage = evals.stage(
        -1,
        "healed" if adapter else "prompt" if system else "base",
        evals.read(subject, found),
        items,
        found,
        config=cfg,
    )
    records.write_json(out, {"schema": records.SCHEMA, "model": model, "adapter": adapter and str(adapter), "system": system,
                             "persona": who.name, "seed": seed, "scores": stage.scores, "items": stage.items})  # fmt: skip
    print(out)


def load(model: str, **how: Any) -> tuple[Any, Any]:
    """The model and tokenizer, after a line that says what is waited for."""
    models.known_device(how.get("device", "auto"))
    err.print(f"loading {model}", style="dim", markup=False, highlight=False)
    return models.load(model, **how)


def vector_extract(
    persona: str = "love", model: str = "smollm2", method: str = VectorConfig.method,
    contrast: Literal["neg", "neutral"] = VectorConfig.contrast, layers: tuple[float, float] = VectorConfig.layers, contexts: int = 256, device: str = "auto", *, out: Path,
) -> None:  # fmt: skip
    """Read a steering vector and save it as safetensors."""
    who = load_persona(persona)
    vectors.methods[method]
    net, tok = load(model, device=device)
    v = vectors.Vector.train(
        net, tok, who, method=method, contrast=contrast, layers=layers, contexts=bank("contexts")[:contexts]
    )
    v.save(out)
    print(out)


def vector_inspect(file: tyro.conf.Positional[Path]) -> None:
    """Print what a saved vector says of itself."""
    v = vectors.Vector.load(file)
    print(f"norm {v.norm():.4g} over layers {sorted(v.directions)}")
    for key, value in v.meta.items():
        print(f"{key}: {value}")


def vector_convert(file: tyro.conf.Positional[Path], *, out: Path) -> None:
    """Write a saved vector as a GGUF control vector for llama.cpp, or read one into ours, by the name's ending."""
    if file.suffix == ".gguf":
        vectors.Vector(
            llama_cpp.load_control_vector(file), {"method": "GGUF control vector", "from": file.name}
        ).save(out)
    elif out.suffix == ".gguf":
        v = vectors.Vector.load(file)
        llama_cpp.save_control_vector(v.directions, str(v.meta.get("model", "unknown")), out)
    else:
        raise UserError(f"shl vector convert: one of {file.name} and {out.name} must end in .gguf.")
    print(out)


def export(
    run: tyro.conf.Positional[Path], format: Literal["peft", "merged", "gguf"] = "peft", *, out: Path
) -> None:
    """Write a run's model: all rounds as one PEFT adapter, merged into full weights (safetensors), or as a GGUF
    LoRA (one file in --out) that llama.cpp applies to the same base."""
    from steer_heal_love.ground.folder import RunFolder

    folder = RunFolder.open(run)
    if not (run / "adapter").is_dir():
        raise UserError(f"{run}: no adapter yet: no round of it was healed.")
    cfg = config.read(folder.path / "config.toml")
    adapter = bake.load_peft(run / "adapter")
    if format == "peft":
        bake.save_peft(adapter, out, base_model=models.base_name(cfg.model))
        print(out)
        return
    net, tok = load(cfg.model, device="cpu", dtype="float32", trust_remote_code=cfg.trust_remote_code)
    if format == "gguf":
        llama_cpp.save_lora(adapter, net.config, out / "adapter.gguf")
    else:
        with records.writing(out):
            out.mkdir(parents=True, exist_ok=True)  # the library says nothing of a file in its place
            with folded(net, [adapter]):
                net.save_pretrained(out, safe_serialization=True)
            tok.save_pretrained(out)
    print(out)


def doctor(model: str = "smollm2", device: str = "auto") -> None:
    """Check that a model can be steered, healed and evaluated here: template, layers, head, hooks, decoding."""
    net, tok = load(model, device=device)
    ends = end_of_turn_ids(net, tok)
    at = models.band(net, VectorConfig.layers)
    print(f"{type(net).__name__} on {records.device_name(net.device)}, {net.dtype}")
    print(
        f"{len(models.layers(net))} decoder layers, steered at {at[0]}–{at[-1]}, end-of-turn tokens {tok.convert_ids_to_tokens(sorted(ends))}"
    )
    ids = prompt_ids(tok, "What do people need most?")
    plain = sample(net, [ids], ends=ends, max_new_tokens=24, seed=0, temperature=0)[0]
    v = vectors.Vector.train(net, tok, load_persona("love"), contexts=bank("contexts")[:16])
    steered = sample(
        net, [ids], ends=ends, max_new_tokens=24, seed=0, temperature=0, steer=v.directions, doses=[0.4]
    )[0]
    print(f"plain:   {tok.decode(plain)!r}\nsteered: {tok.decode(steered)!r}")
    if plain == steered:
        raise UserError(
            "the steering hook changed nothing: the layers that were found are not those that run."
        )
    print("steering changes cached decoding; the head recomputes the model's logits. All well.")


LISTS: dict[str, Callable[[], list[str]]] = {
    "personas": persona_names,
    "methods": lambda: list(vectors.methods),
    "checks": lambda: list(sieve.checks),
    "divergences": lambda: list(heal.divergences),
    "instruments": lambda: list(evals.instruments),
    "comparisons": lambda: list(comparison.methods),
}


def listed(what: tyro.conf.Positional[str]) -> None:
    """Print the names of one kind of plug-in: personas, methods, checks, divergences, instruments,
    comparisons."""
    if what not in LISTS:
        raise unknown("list", what, LISTS)
    print("\n".join(LISTS[what]()))


def lint(persona: tyro.conf.Positional[str | None] = None) -> None:
    """Check a persona's file, or every shipped bank: counts, lengths, duplicates, leaks between train and held-out."""
    from steer_heal_love.evals import lint as vignettes
    from steer_heal_love.evals import lint_capability as capability
    from steer_heal_love.persona import lint as personas

    if persona:
        findings = personas.findings(persona)
    else:
        findings = [*personas.findings(), *vignettes.findings(), *capability.findings()]
    if findings:
        raise UserError("\n".join(findings))
    print(f"{persona or 'banks'}: no findings")


COMMANDS: dict[str, Callable[..., None]] = {
    "eval": evaluate, "vector extract": vector_extract, "vector inspect": vector_inspect, "vector convert": vector_convert, "export": export,
    "report": show, "doctor": doctor, "list": listed, "lint": lint,
}  # fmt: skip
WITH_SETTINGS: dict[str, Callable[[list[str]], None]] = {"run": run, "compare": compare}
"""commands whose options are every setting of a run"""


def usage() -> str:
    first = {
        name: (f.__doc__ or "").splitlines()[0]
        for name, f in {"run": Run, "compare": Compare, **COMMANDS}.items()
    }
    lines = [f"  shl {name:<16} {text}" for name, text in first.items()]
    return "usage: shl COMMAND [options]; each command has --help\n\n" + "\n".join(lines)


def dispatch(argv: list[str]) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return
    name = " ".join(argv[:2]) if argv[0] == "vector" else argv[0]
    rest = argv[len(name.split()) :]
    if name in WITH_SETTINGS:
        WITH_SETTINGS[name](rest)
    elif name in COMMANDS:
        tyro.cli(COMMANDS[name], args=rest, prog=f"shl {name}")
    else:
        raise unknown("command", name, {*WITH_SETTINGS, *COMMANDS})


def main(argv: list[str] | None = None) -> None:
    """Entry point of `shl` and `steer-heal-love`."""
    try:
        dispatch(sys.argv[1:] if argv is None else argv)
    except UserError as e:
        say(f"error: {e}", "red")
        sys.exit(2)
    except (Starved, Diverged) as e:
        say(f"stopped: {e}", "yellow")
        sys.exit(3)
    except KeyboardInterrupt as e:
        say(f"interrupted; {e}" if e.args else "interrupted", "yellow")
        sys.exit(130)


def say(message: str, style: str) -> None:
    """To stderr, a line as long as it is: a path that is broken cannot be copied."""
    err.print(message, style=style, markup=False, highlight=False, soft_wrap=True)
