"""One model by itself, measured beside its own base: what `shl eval` does, and a run's evaluation without a run.

Reference: the pristine base under the neutral system prompt, its own samples and its own neutral answers.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from steer_heal_love import bake, evals
from steer_heal_love.config import RunConfig
from steer_heal_love.evals import neutral
from steer_heal_love.generate import generate
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.ground.progress import Track, silent
from steer_heal_love.nouns import Stage, StageName
from steer_heal_love.persona import load as load_persona
from steer_heal_love.session import OWN_SAMPLES, loaded, seed_for, yardstick


def evaluate(
    cfg: RunConfig, *, adapter: Path | None = None, system: str | None = None, track: Track = silent
) -> Stage:
    """The model that `cfg` names, with a PEFT `adapter` or a `system` prompt or both, paired with its base.

    Persona, instruments and their sizes are those of `cfg`; with neither, the base's own scores, every shift 0.
    Raises `UserError` before a model is loaded.
    """
    who = load_persona(cfg.persona)
    cfg.check()
    evals.ready(cfg.eval)
    evals.chosen_probes(who, cfg.eval)
    whole = bake.load_peft(adapter) if adapter else None
    model, tok = loaded(cfg, track)
    prompts = [text for _, text in neutral.prompts(cfg.eval)]
    if not any(i.name == "neutral" for i in evals.wanted(cfg.eval)):
        prompts = []
    answers = generate(
        model, tok, prompts, [0.0], config=yardstick(cfg), seed=neutral.SEED, max_new_tokens=cfg.eval.sample_tokens,
        label="base: neutral", track=track,
    )  # fmt: skip
    tokens = [c.tokens.answer for c in answers]
    base = evals.Subject(
        model, tok, who, cfg.eval, evals.neutral_reference(model, tok, prompts, tokens, cfg.batch_tokens),
        seed=seed_for(cfg.seed, OWN_SAMPLES), draws=cfg.eval.base_draws, batch=cfg.generate.batch, batch_tokens=cfg.batch_tokens,
    )  # fmt: skip
    base = replace(base, prepared=evals.prepared(base))
    with track("evaluate base", evals.count(cfg.eval)) as advance:
        reference = evals.evaluate(base, "base", advance=advance)
    if whole is None and system is None:
        return reference
    name: StageName = "healed" if whole else "prompt"
    changed = [lambda: adapted(model, whole.factors, whole.scaling)] if whole else []
    subject = replace(
        base, system=base.system if system is None else system, draws=cfg.eval.healed_draws,
        base_samples=reference.samples, base_drawn=[*reference.samples, *reference.redrawn],
    )  # fmt: skip
    with track(f"evaluate {name}", evals.count(cfg.eval)) as advance:
        return evals.evaluate(subject, name, *changed, base=reference, advance=advance)
