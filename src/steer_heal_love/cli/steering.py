"""`shl vector sweep`, `inspect`, `import` and `condition`: what can be known of steering before a run, vectors of other tools,
and where to steer."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from steer_heal_love import presets
from steer_heal_love.cli import screen
from steer_heal_love.config import ConditionConfig, RunConfig, VectorConfig
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.overrides import override
from steer_heal_love.ground.shown import shown
from steer_heal_love.ground.untrusted import MEGABYTE, inside, read_text
from steer_heal_love.persona import load as load_persona
from steer_heal_love.persona import names as persona_names
from steer_heal_love.persona.table import LONGEST_PROMPT

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from steer_heal_love.ground.condition import Condition


CONTEXTS = 32
"""how many short texts a vector is averaged over while a choice is looked for: half of a run's"""


def settings(persona: str, model: str, template: str, device: str, contexts: int, seed: int) -> RunConfig:
    """A run's settings on a small held-out set: the search half of the probes, few contexts."""
    start = presets.fitting(device, model)
    cfg = override(
        start,
        {
            "persona": persona,
            "model": model,
            "template": template,
            "device": device,
            "seed": seed,
            "vector": {"contexts": contexts},
            "eval": {"probe_half": "search"},
        },
    )
    cfg = replace(cfg, generate=replace(cfg.generate, max_new_tokens=min(cfg.generate.max_new_tokens, 56)))
    cfg.check()
    return cfg


def sweep(
    persona: str = "love",
    model: str = "smollm2",
    methods: tuple[str, ...] = (),
    operations: tuple[str, ...] = ("add",),
    bands: tuple[tuple[float, float], ...] = (),
    nats: tuple[float, ...] = (1.0,),
    floor: float | None = None,
    contexts: int = CONTEXTS,
    template: str = "",
    device: str = "auto",
    hook: str = "",
    seed: int = 0,
    *,
    out: Path,
) -> None:
    """Compare steering methods and layers at equal divergence from the base, and choose by trait per nat.

    Args:
        methods: steering methods (`shl list methods`), and the controls random and unrelated; all methods when none is named
        operations: what a direction does to the hidden state: add, ablate, gate, rotate. `shl run --choice` accepts add only.
            linear_act has an operation of its own
        bands: first and last layer of each band to try, as shares of the depth; a few usual bands when none is given
        nats: every dose is set so that the 95th percentile of the per-token divergence from the unsteered model is this
        floor: how coherent a choice must be at least, as a share of the base's own coherent share
        contexts: how many short texts the vectors are averaged over
        hook: the linear module of each layer whose output is read and steered; the residual stream when none is named
        out: the folder for sweep.json and sweep.png; `shl run --choice DIR/sweep.json` takes the choice
    """
    with screen.importing():
        from steer_heal_love import report
        from steer_heal_love import sweep as room
        from steer_heal_love import vector as vectors
        from steer_heal_love.ground.operations import operations as known
        from steer_heal_love.report import sweep as drawn
        from steer_heal_love.session import loaded
        from steer_heal_love.vector.controls import CONTROLS

    if not nats or not all(0 < x < float("inf") for x in nats):
        raise UserError(f"--nats: numbers above 0, found {nats}.")
    if wrong := [b for b in bands if not 0 <= b[0] < b[1] <= 1]:
        raise UserError(f"--bands: two shares of the depth, rising, found {wrong[0]}.")
    for registry, names in ((vectors.methods, set(methods) - set(CONTROLS)), (known, operations)):
        for name in names:
            registry[name]  # type: ignore[index]
    cfg, who = settings(persona, model, template, device, contexts, seed), load_persona(persona)
    cfg = override(cfg, {"vector": {"hook": hook}})
    chosen = bands or room.BANDS
    with report.progress(screen.out) as track:
        net, tok = loaded(cfg, track)
        bed = room.laid(net, tok, who, cfg, room.layers_of(net, chosen), track=track)
        found = room.sweep(
            bed,
            bands=chosen,
            names=methods,
            operations=operations,
            nats=nats,
            floor=room.FLOOR if floor is None else floor,
        )
    row = room.saved(found, bed, out / "sweep.json")
    drawn.write_curve(row, out / "sweep.png")
    screen.out.print(drawn.table(row))
    for line in drawn.said(row):
        screen.tell(line)
    screen.tell(out / "sweep.json")


def inspect(
    what: tyro.conf.Positional[str],
    model: str = "smollm2",
    nats: float = 1.0,
    contexts: int = CONTEXTS,
    template: str = "",
    device: str = "auto",
    seed: int = 0,
) -> None:
    """Describe a saved vector or condition; or say whether a persona's two poles are worth a run.

    Args:
        what: a vector's or a condition's file, or a persona's name or TOML file
        nats: for a persona, the divergence at which the effect is measured
        contexts: for a persona, how many short texts the vectors are averaged over
    """
    if what.endswith(".safetensors") or (Path(what).is_file() and not what.endswith(".toml")):
        return saved(Path(what))
    with screen.importing():
        from steer_heal_love import report
        from steer_heal_love import sweep as room
        from steer_heal_love.ground import models, records
        from steer_heal_love.report import sweep as drawn
        from steer_heal_love.session import loaded
        from steer_heal_love.sweep.preflight import preflight

    cfg, who = settings(what, model, template, device, contexts, seed), load_persona(what)
    if not 0 < nats < float("inf"):
        raise UserError(f"--nats: above 0, found {nats}.")
    with report.progress(screen.out) as track:
        net, tok = loaded(cfg, track)
        bed = room.laid(net, tok, who, cfg, models.band(net, VectorConfig.layers), track=track)
        found = preflight(bed, [load_persona(name) for name in persona_names()], nats=nats, seed=seed)
    for line in drawn.preflight_lines(records.plain(found)):
        screen.tell(line)


def saved(file: Path) -> None:
    """What a vector's or a condition's file says."""
    from steer_heal_love import vector as vectors
    from steer_heal_love.vector import condition_file

    if condition_file.is_condition(file):
        found, meta = condition_file.read(file)
        screen.tell(f"condition: {met_by(found)}")
        for key, value in meta.items():
            screen.tell(shown(f"{key}: {value}"))
        return
    v = vectors.Vector.load(file)
    screen.tell(f"norm {v.norm():.4g} over layers {sorted(v.directions)}")
    for key, value in v.meta.items():
        screen.tell(shown(f"{key}: {value}"))


def met_by(c: Condition) -> str:
    """Which prompts meet a condition, in words."""
    side = "at most" if c.below else "above"
    return (
        f"steers where the cosine at layer {c.layer} of {len(c.direction)} values is {side} {c.threshold:.4f}"
    )


def condition(
    persona: str = "love",
    model: str = "smollm2",
    steer: Path | None = None,
    leave: Path | None = None,
    layer: float = ConditionConfig.layer,
    cut: Literal["balanced", "quantile", "threshold"] = ConditionConfig.cut,
    value: float = ConditionConfig.value,
    side: Literal["above", "below"] = ConditionConfig.side,
    template: str = "",
    device: str = "auto",
    *,
    out: Path,
) -> None:
    """Read which prompts to steer from examples of two kinds, and save that as safetensors (`shl run --condition.file`).

    Args:
        persona: whose training prompts that draw the trait out are the first kind; neutral prompts are the second
        steer: a text file of prompts to steer, one a line, instead of the persona's
        leave: a text file of prompts to leave alone, one a line, instead of neutral ones
        layer: share of the depth at whose layer prompts are compared
        cut: how the threshold is set: balanced (where held-out prompts of both kinds are told apart best), quantile (the share
            --value of the first kind lies below it), threshold (--value itself, a cosine)
        side: below steers exactly the other prompts
    """
    how = ConditionConfig(persona=persona, layer=layer, cut=cut, value=value, side=side)
    override(RunConfig(), {"condition": asdict(how)}).check()
    lists = tuple(prompts_of(file) if file else None for file in (steer, leave))
    who = load_persona(persona)
    with screen.importing():
        from steer_heal_love.cli.verbs import load
        from steer_heal_love.conditions import examples
        from steer_heal_love.ground import models
        from steer_heal_love.ground.chat import template_hash
        from steer_heal_love.vector import condition_file

    net, tok = load(model, device=device, template=template)
    found = examples(net, tok, who, how, RunConfig.batch_tokens, *lists)
    meta = {
        "steer": shown(steer.name) if steer else f"prompts that draw out {who.name}",
        "leave": shown(leave.name) if leave else "neutral prompts",
        "cut": cut,
        "value": value,
        "steered_of_the_first": found.steered.mean,
        "steered_of_the_second": found.left.mean,
        "held_out": [found.steered.n, found.left.n],
        "model": models.fingerprint(net),
        "template": template_hash(tok),
    }
    condition_file.save(found.condition, out, meta)
    screen.tell(f"{out}: {met_by(found.condition)}")
    for kind, share in (("first", found.steered), ("second", found.left)):
        screen.tell(
            f"of {share.n} held-out prompts of the {kind} kind it steers {share.mean:.2f} [{share.lo:.2f}, {share.hi:.2f}]"
        )


def prompts_of(file: Path) -> list[str]:
    """A file's prompts, one a line. Raises `UserError` for one that is too long, and as reading does."""
    lines = [line.strip() for line in read_text(file, str(file), most=MEGABYTE).splitlines()]
    found = list(dict.fromkeys(line for line in lines if line))
    if long := [p for p in found if len(p) > LONGEST_PROMPT]:
        raise UserError(f"{shown(file)}: a prompt of {len(long[0])} characters, at most {LONGEST_PROMPT}.")
    return found


def written(
    net: PreTrainedModel,
    tok: PreTrainedTokenizerBase,
    run: Path,
    operation: str,
    dose: float | None,
    out: Path,
) -> None:
    """`shl export --steered`: round 0's vector at its dose, without hooks."""
    from steer_heal_love import vector as vectors
    from steer_heal_love.bake.steered import save_steered
    from steer_heal_love.ground.operations import Steering
    from steer_heal_love.session import walked_dose

    file = run / "rounds" / "00" / "vector.safetensors"
    if not file.is_file():
        raise UserError(f"{shown(run)}: no steering vector yet: round 0 has not read one.")
    at = walked_dose(run) if dose is None else dose
    if at is None or not math.isfinite(at):
        raise UserError(f"{shown(run)}: round 0 found no dose; give one with --dose.")
    vector = vectors.Vector.load(inside(run, file))
    save_steered(net, tok, Steering(vector.directions, operation), at, out)


def imported(
    file: tyro.conf.Positional[Path],
    layer_base: Literal["0", "1"] | None = None,
    norm: Literal["raw", "unit"] = "raw",
    operation: Literal["add"] = "add",
    layers: tuple[int, ...] = (),
    hook: str = "",
    *,
    out: Path,
) -> None:
    """Import another tool's steering vector, and save it in this tool's form.

    Args:
        file: a GGUF control vector (repeng, llama.cpp), or safetensors: one tensor [layers, width] as persona_vectors
            stacks them, or one [width] a layer with the layer's number at the end of its name
        layer_base: what the numbers of a safetensors file mean. 0: number N is the output of decoder layer N. 1: it is the
            N-th hidden state, the embedding being the 0-th
        norm: raw keeps every direction's length, unit makes it 1
        operation: what the vector does to the hidden state; a saved vector is added
        layers: decoder layers to keep, from 0; all when none is named
        hook: the linear module of each layer whose output is steered, such as mlp.down_proj; the residual stream when none
            is named
    """
    from steer_heal_love import vector as vectors
    from steer_heal_love.bake import llama_cpp
    from steer_heal_love.ground.places import Directions
    from steer_heal_love.vector import imports

    imports.unpickled(file)
    if file.suffix == ".gguf":
        found, told = llama_cpp.load_control_vector(file), "as llama.cpp"
    elif layer_base is None:
        raise UserError("--layer-base: state 0 or 1, since the file doesn't say how its layers are numbered.")
    else:
        found, told = imports.foreign(file, base=0 if layer_base == "0" else 1), layer_base
    made = vectors.Vector(
        Directions(imports.adjusted(found, norm=norm, at=layers), hook=hook),
        {
            "method": "imported",
            "from": file.name,
            "layer_base": told,
            "norm": norm,
            "operation": operation,
            "hook": hook,
        },
    )
    made.save(out)
    screen.tell(f"{out}: {len(made.directions)} layers, {operation}, norm {made.norm():.4g}")
