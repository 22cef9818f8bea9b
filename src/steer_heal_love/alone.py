"""One model by itself, measured beside its own base: what `shl eval` does, and a run's evaluation without a run.

Reference: the pristine base under the neutral system prompt, its own samples and its own neutral answers. A `Bench`
holds the base and those answers, so that several personas are measured on one loading of it (`certify`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from steer_heal_love import bake, evals
from steer_heal_love.config import EvalConfig, RunConfig
from steer_heal_love.evals import neutral
from steer_heal_love.generate import generate
from steer_heal_love.ground import fits, identity, purposes
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.ground.progress import Track, silent
from steer_heal_love.ground.shown import shown
from steer_heal_love.nouns import Adapter, Persona, Stage, StageName
from steer_heal_love.persona import load as load_persona
from steer_heal_love.session import ignored, loaded, reference_sampling, seed_for


@dataclass(frozen=True)
class Bench:
    """A base in memory and its own answers to neutral prompts: what models are measured beside."""

    config: RunConfig
    model: Any
    tok: Any
    neutral: list[Any]
    track: Track = silent

    def subject(self, who: Persona, config: EvalConfig) -> evals.Subject:
        """The base as one persona's instruments see it, with what those share over all models."""
        cfg = self.config
        base = evals.Subject(
            self.model,
            self.tok,
            who,
            config,
            self.neutral,
            seed=seed_for(cfg.seed, purposes.OWN_SAMPLES),
            draws=config.base_draws,
            batch=replace(cfg, eval=config).samples_at_once,
            batch_tokens=cfg.batch_tokens,
        )
        return replace(base, prepared=evals.prepared(base))

    def reference(self, base: evals.Subject) -> Stage:
        """The base's own scores, every shift 0."""
        with self.track("evaluate base", evals.count(base.config)) as advance:
            return evals.evaluate(base, "base", advance=advance)

    def beside(
        self,
        base: evals.Subject,
        reference: Stage,
        name: StageName,
        *contexts: Callable[[], AbstractContextManager[None]],
        system: str | None = None,
        other: PreTrainedModel | None = None,
    ) -> Stage:
        """What the base becomes in `contexts` or under a `system` prompt, or an `other` model, paired with the base."""
        subject = replace(
            base,
            system=base.system if system is None else system,
            draws=base.config.healed_draws,
            base_samples=reference.samples,
            base_drawn=[*reference.samples, *reference.redrawn],
        )
        with self.track(f"evaluate {name}", evals.count(base.config)) as advance:
            return evals.evaluate(subject, name, *contexts, base=reference, other=other, advance=advance)


def bench(cfg: RunConfig, model: Any, tok: Any, track: Track = silent) -> Bench:
    """The base that `cfg` names, already loaded, and its neutral answers; none where drift isn't measured."""
    prompts = [text for _, text in neutral.prompts(cfg.eval)]
    if not any(i.name == "neutral" for i in evals.wanted(cfg.eval)):
        prompts = []
    answers = generate(
        model,
        tok,
        prompts,
        [0.0],
        config=reference_sampling(cfg),
        seed=neutral.SEED,
        max_new_tokens=cfg.eval.sample_tokens,
        label="base: neutral",
        track=track,
    )
    tokens = [c.tokens.answer for c in answers]
    return Bench(
        cfg, model, tok, evals.neutral_reference(model, tok, prompts, tokens, cfg.batch_tokens), track
    )


def belongs(
    model: Any, tok: Any, whole: Adapter, folder: Path, *, name: str, warn: identity.Warn = ignored
) -> None:
    """Raise `UserError` for an adapter that is not of this base; `warn` of what else is odd about it."""
    fits.adapter(model, whole.factors)
    identity.check_adapter(model, tok, folder, name=name, warn=warn)
    if bake.is_nothing(whole):
        warn(f"{shown(folder)}: changes nothing: one factor of every module is zero.")


def evaluate(
    cfg: RunConfig,
    *,
    adapter: Path | None = None,
    system: str | None = None,
    track: Track = silent,
    warn: identity.Warn = ignored,
) -> Stage:
    """The model that `cfg` names, with a PEFT `adapter` or a `system` prompt or both, paired with its base.

    Persona, instruments and their sizes are those of `cfg`; with neither, the base's own scores, every shift 0.
    Raises `UserError` before a model is loaded, and before anything is measured for an adapter of another base;
    `warn` is told what else is odd about it.
    """
    who = load_persona(cfg.persona)
    cfg.check()
    evals.ready(cfg.eval)
    evals.chosen_probes(who, cfg.eval)
    whole = bake.load_peft(adapter) if adapter else None
    model, tok = loaded(cfg, track)
    if whole and adapter:
        belongs(model, tok, whole, adapter, name=cfg.model, warn=warn)
    on = bench(cfg, model, tok, track)
    base = on.subject(who, cfg.eval)
    reference = on.reference(base)
    if whole is None and system is None:
        return reference
    changed = [lambda: adapted(model, whole.factors, whole.scaling)] if whole else []
    return on.beside(base, reference, "healed" if whole else "prompt", *changed, system=system)
