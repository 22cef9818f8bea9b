"""What did anyone's adapter, or anyone's fine-tuned model, do? Measured beside its base by the instruments of a run.

In: a target, the settings of an evaluation, the personas whose traits it is said to have. Out: a `Certificate`: for each
trait a stage with every default instrument, set beside the nulls, and a verdict (`gates.certificate`); for every other
shipped persona its `trait_shift`, all of them read at once and so sharing one error; what the model's own text reads like.
Nothing is measured here that `shl eval` doesn't measure: see `alone`, `evals`, `gates`. `report` draws the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from steer_heal_love import alone, evals
from steer_heal_love.certify.target import CONFIG, Target, target
from steer_heal_love.config import RunConfig
from steer_heal_love.evals import nulls, wording
from steer_heal_love.gates import Evidence
from steer_heal_love.gates.certificate import KINDS, certified, with_few
from steer_heal_love.generate import generate
from steer_heal_love.ground import identity, models, purposes, records
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.ground.progress import Track, silent
from steer_heal_love.ground.shown import shown
from steer_heal_love.ground.stats import paired
from steer_heal_love.nouns import Gate, Json, Persona, Score, Stage
from steer_heal_love.persona import load as load_persona
from steer_heal_love.persona import names as shipped
from steer_heal_love.persona import training_prompts
from steer_heal_love.session import ignored, loaded, seed_for

ONCE = ("vignettes", "capability")
"""instruments that don't depend on the persona: run for the first trait alone"""
CALIBRATION = purposes.BASE, purposes.CALIBRATION
"""the purpose of the seed of the base's answers that a run's null is read over, the same here"""


@dataclass(frozen=True)
class Trait:
    """One trait's verdict: the persona, the gate, what it comes to, and the stages that it was read from."""

    persona: str
    gate: Gate
    kind: str
    base: Stage
    model: Stage


@dataclass(frozen=True)
class Certificate:
    """All that was found of one target. `others`: trait_shift of every other shipped persona."""

    target: Target
    traits: list[Trait]
    others: dict[str, Score] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    about: Json = field(default_factory=dict)

    @property
    def passes(self) -> bool:
        """Whether every trait is certified."""
        return all(t.gate.verdict == "pass" for t in self.traits)

    def record(self) -> Json:
        """What `certificate.json` holds."""
        return {
            "schema": records.SCHEMA,
            "target": self.target.name,
            "kind": self.target.kind,
            "base": self.target.base,
            "verdict": "certified" if self.passes else "not certified",
            **self.about,
            "notes": self.notes,
            "traits": [
                {
                    "persona": t.persona,
                    "kind": t.kind,
                    "gate": t.gate,
                    "scores": t.model.scores,
                    "base": t.base.scores,
                    "samples": [
                        {"prompt": m["prompt"], "base": b["text"], "model": m["text"]}
                        for m, b in zip(t.model.samples, t.base.samples, strict=True)
                    ],
                }
                for t in self.traits
            ],
            "others": self.others,
        }


@dataclass(frozen=True)
class Measuring:
    """One target on its bench: how any persona is measured on it."""

    on: alone.Bench
    changed: list[Any]
    other: Any

    def stages(self, who: Persona, cfg: Any) -> tuple[evals.Subject, Stage, Stage]:
        """The persona's subject, and the base and the target under `cfg`'s instruments."""
        subject = self.on.subject(who, cfg)
        base = self.on.reference(subject)
        return subject, base, self.on.beside(subject, base, "healed", *self.changed, other=self.other)

    def prompted(self, subject: evals.Subject, base: Stage) -> list[Stage]:
        """The base told by a system prompt to be the pos pole, in the best of the wordings as in a run, on the probes alone."""
        probes = replace(subject, config=replace(subject.config, instruments=("probes",)))
        best = wording.choose(subject) if wording.asked(subject.config) else wording.first(subject.persona)
        return [self.on.beside(probes, base, "prompt", system=best.system)]


def certify(
    aim: Target,
    personas: Sequence[str] = ("love",),
    cfg: RunConfig | None = None,
    *,
    among: Sequence[str] | None = None,
    track: Track = silent,
    warn: identity.Warn = ignored,
) -> Certificate:
    """Measure `aim` for the traits of `personas`; `among`: the other personas, every shipped one when none is given.

    Raises `UserError` before a model is loaded for what is wrong with the settings or personas, and before anything is
    measured for an adapter or a model that doesn't fit the base.
    """
    cfg = replace(cfg or RunConfig(), model=aim.base)
    cfg.check()
    evals.ready(cfg.eval)
    if not personas:
        raise UserError("certify: name at least one persona whose trait the model is said to have.")
    chosen = [load_persona(p) for p in dict.fromkeys(personas)]
    for who in chosen:
        evals.chosen_probes(who, cfg.eval)
    rest = [load_persona(p) for p in (shipped() if among is None else among)]
    rest = [p for p in rest if p.name not in {who.name for who in chosen}]
    notes: list[str] = []

    def said(message: str) -> None:
        notes.append(message)
        warn(message)

    model, tok = loaded(cfg, track)
    it = measuring(aim, alone.bench(cfg, model, tok, track), said)
    traits = [trait(it, who, cfg, first=i == 0) for i, who in enumerate(chosen)]
    about = {
        "seed": cfg.seed,
        "device": records.device_name(model.device),
        "dtype": str(model.dtype),
        "base_hash": models.fingerprint(model),
        "versions": records.versions(),
        "modules": len(aim.adapter.factors) if aim.adapter else None,
        "rank": aim.adapter.rank if aim.adapter else None,
    }
    return Certificate(aim, traits, elsewhere(it, rest, cfg), notes, about)


def measuring(aim: Target, on: alone.Bench, warn: identity.Warn) -> Measuring:
    """The target ready to be measured: an adapter beside the base's weights, or a model of its own in memory."""
    if aim.adapter and aim.folder:
        whole = aim.adapter
        alone.belongs(on.model, on.tok, whole, aim.folder, name=aim.base, warn=warn)
        return Measuring(on, [lambda: adapted(on.model, whole.factors, whole.scaling)], None)
    other, words = loaded(replace(on.config, model=aim.name), on.track)
    if words.get_vocab() != on.tok.get_vocab():
        raise UserError(
            f"{shown(aim.name)}: its tokenizer has other tokens than that of {shown(aim.base)}, so next-token "
            "distributions can't be compared; give the base that it was made from."
        )
    sizes = [m.get_output_embeddings().weight.shape[0] for m in (other, on.model)]
    if sizes[0] != sizes[1]:
        raise UserError(
            f"{shown(aim.name)}: its output layer has {sizes[0]} rows, that of {shown(aim.base)} {sizes[1]}; give the "
            "base that it was made from, or resize one to the other."
        )
    if models.fingerprint(other) == models.fingerprint(on.model):
        warn(f"{shown(aim.name)}: has the very weights of {shown(aim.base)}.")
    if words.chat_template != on.tok.chat_template:
        warn(
            f"{shown(aim.name)}: has another chat template than {shown(aim.base)}; both are read with the base's."
        )
    return Measuring(on, [], other)


def trait(it: Measuring, who: Persona, cfg: RunConfig, *, first: bool) -> Trait:
    """Every instrument for one persona, the nulls, and the verdict."""
    wanted = [i.name for i in evals.wanted(cfg.eval)]
    names = tuple(n for n in wanted if first or n not in ONCE)
    subject, base, model = it.stages(who, replace(cfg.eval, instruments=names))
    if cfg.eval.nulls and "probes" in names:
        asked = training_prompts(who, nulls.ANSWERS, seed=seed_for(cfg.seed, purposes.BASE))
        answers = generate(
            it.on.model,
            it.on.tok,
            asked,
            [0.0],
            config=cfg.generate,
            seed=seed_for(cfg.seed, *CALIBRATION),
            label="base: nulls",
            track=it.on.track,
        )
        model = nulls.beside(model, base, nulls.traced(subject, answers), resamples=cfg.eval.resamples)
    model = with_few(model, base, resamples=cfg.eval.resamples)
    told = it.prompted(subject, base) if "probes" in names else []
    gate = certified(
        Evidence(who, [base, *told, model], resamples=cfg.eval.resamples, floor=cfg.coherence_floor)
    )
    return Trait(who.name, gate, KINDS[gate.outcome], base, model)


def elsewhere(it: Measuring, rest: Sequence[Persona], cfg: RunConfig) -> dict[str, Score]:
    """trait_shift of each persona that the target is not said to have; the intervals hold together."""
    probes = replace(cfg.eval, instruments=("probes",), probe_half="all")
    out = {}
    for who in rest:
        _, base, model = it.stages(who, probes)
        out[who.name] = paired(
            model.items["trait"], base.items["trait"], resamples=cfg.eval.resamples, comparisons=len(rest)
        )
    return out


__all__ = ["CONFIG", "Certificate", "Target", "Trait", "certify", "target"]
