"""What a run measures of the pristine base before its first round: answers, the filter's bounds, scores.

What follows from the model and a few settings alone is kept on the shelf (`ground.shelf`), and taken from there by the
next run of the same base.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from steer_heal_love import evals
from steer_heal_love import filter as sieve
from steer_heal_love.config import GenerateConfig
from steer_heal_love.evals import neutral, nulls, wording
from steer_heal_love.generate import generate
from steer_heal_love.ground import purposes, records, shelf, team
from steer_heal_love.ground.banks import mix
from steer_heal_love.ground.scoring import hidden_states
from steer_heal_love.ground.step import COMPLETIONS, JSON, STAGES, Codec, Step
from steer_heal_love.heal.examples import Example
from steer_heal_love.nouns import Completion, Stage, StageName, Tokens
from steer_heal_love.persona import training_prompts
from steer_heal_love.session import Base, Session, reference_sampling

T = TypeVar("T")
ANCHOR_SEED = 0
"""of the base's answers that bound the heal, the same in every run; neutral_kl's own seed is in `evals.neutral`"""
NULLS: Step[nulls.Nulls] = Step("nulls", "nulls.json", Codec(nulls.load, nulls.save))
WORDING = Step("evaluate", "wording.json", JSON)
SCORES = Step("evaluate", "scores.json", STAGES)


def measured(s: Session) -> Base:
    """What every round needs of the pristine base, measured or read back."""
    cfg, here = s.config, s.folder.path / "base"
    answers = own_answers(s)
    base = with_states(s, answers)
    bounds = sieve.calibrate(answers["calibration"], cfg.filter.quantile)
    s.folder.still_there()
    records.write_json(here / "bounds.json", bounds)
    records.write_json(here / "checks.json", sieve.sides(bounds))
    judged = sieve.judge(answers["calibration"], bounds)
    coherent = sum(c.coherent for c in judged) / len(judged)
    base = replace(base, bounds=bounds, calibration=judged, coherent=coherent)
    return scored(s, base, {name: [c.tokens for c in made] for name, made in answers.items()})


def own_answers(s: Session) -> dict[str, list[Completion]]:
    """The base's answers to the prompts that anchor the heal, to held-out neutral ones, and to training prompts."""
    cfg = s.config
    text, plain = cfg.generate, reference_sampling(cfg)
    anchors, drifts = mix(cfg.heal.anchor_kinds, "train", cfg.heal.anchor_prompts), neutral.prompts(cfg.eval)
    training, seed = (
        training_prompts(s.persona, cfg.filter.calibration, seed=s.seed(purposes.BASE)),
        s.seed(purposes.BASE, purposes.CALIBRATION),
    )

    def answer(name: str, prompts: list[str], drawn: GenerateConfig, seed: int, n: int) -> list[Completion]:
        write = partial(generate, s.model, s.tok, prompts, [0.0], label=f"base: {name}", track=s.track)
        return write(config=drawn, seed=seed, max_new_tokens=n)

    def calibration() -> list[Completion]:
        return s.measured(answer("calibration", training, text, seed, text.max_new_tokens))

    fixed = {
        "anchor": (anchors, ANCHOR_SEED, cfg.heal.anchor_tokens),
        "neutral": (drifts, neutral.SEED, cfg.eval.sample_tokens),
    }
    out = {}
    for name, (asked, drawn_with, n) in fixed.items():
        make = partial(answer, name, [prompt for _, prompt in asked], plain, drawn_with, n)
        out[name] = shelved(s, Step("base", f"{name}.jsonl", COMPLETIONS), make, (plain, asked, n))
    decides = (text, training, seed, s.persona, cfg.filter.checks, cfg.batch_tokens)
    out["calibration"] = shelved(s, Step("base", "calibration.jsonl", COMPLETIONS), calibration, decides)
    return out


def with_states(s: Session, answers: dict[str, list[Completion]]) -> Base:
    """The answers that a heal and an evaluation compare with, and the base's hidden states over them."""
    anchor, drift = answers["anchor"], answers["neutral"]
    with s.track("base: states", len(anchor) + len(drift)) as advance:
        hidden = lambda made: hidden_states(
            s.model, [c.tokens for c in made], batch_tokens=s.config.batch_tokens, advance=advance
        )
        ours, theirs = hidden(anchor), hidden(drift)
    return Base(
        anchor=[Example(c.tokens, h, c.prompt) for c, h in zip(anchor, ours, strict=True)],
        neutral=[(c.prompt, c.tokens, h) for c, h in zip(drift, theirs, strict=True)],
    )


def scored(s: Session, base: Base, tokens: dict[str, list[Tokens]]) -> Base:
    """With the base's scores, as it is and with the persona's system prompt; what all stages share is made first."""
    cfg, subject = s.config, of(s, base)
    asked = (cfg.eval, evals.bank_hashes(cfg.eval), s.persona, cfg.samples_at_once, cfg.batch_tokens)
    wording = shelved(s, WORDING, lambda: asdict(chosen_wording(s, subject)), asked, round=-1)
    plain = asked, tokens["neutral"], tokens["calibration"]
    reached = shelved(s, NULLS, partial(traced, s, subject, base.calibration), plain)

    def prepared(name: str, make: Callable[[], Any]) -> Any:
        return shelved(s, Step("base", f"{name}.json", JSON), make, (plain, subject.seed))

    base = replace(base, nulls=reached, prepared=evals.prepared(subject, prepared))

    def evaluate() -> list[Stage]:
        plain_base = evaluated(s, base, "base", draws=cfg.eval.base_draws, pristine=True)
        prompted = evaluated(s, replace(base, stages=[plain_base]), "prompt", system=wording["system"])
        return [plain_base, prompted]

    decides = plain, wording["system"], subject.seed
    return replace(base, stages=shelved(s, SCORES, evaluate, decides, round=-1))


def chosen_wording(s: Session, subject: evals.Subject) -> wording.Chosen:
    """The system prompt of the prompted model: the best of the wordings where probes are asked, else the first."""
    if not wording.asked(s.config.eval):
        return wording.first(s.persona)
    with s.track("choose the prompt's wording", wording.count()) as advance:
        return wording.choose(subject, advance)


def traced(s: Session, subject: evals.Subject, calibration: list[Completion]) -> nulls.Nulls:
    """What a bias of words and a temperature reach by themselves, at every drift."""
    if not s.config.eval.nulls:
        return {}
    with s.track("nulls", 1) as advance:
        found = nulls.traced(subject, calibration)
        advance(1)
    return found


def of(s: Session, base: Base, **given: Any) -> evals.Subject:
    """What every instrument is given. `given`: what this model has that others don't, such as a `system` prompt."""
    cfg = s.config
    first = base.stages[0] if base.stages else Stage(-1, "base", {}, {})
    return evals.Subject(
        s.model,
        s.tok,
        s.persona,
        cfg.eval,
        base.neutral,
        seed=s.seed(purposes.OWN_SAMPLES),
        batch=cfg.samples_at_once,
        batch_tokens=cfg.batch_tokens,
        base_samples=first.samples,
        base_drawn=[*first.samples, *first.redrawn],
        prepared=base.prepared,
        **given,
    )


def evaluated(
    s: Session,
    base: Base,
    name: StageName,
    number: int = -1,
    *contexts: Any,
    dose: float | None = None,
    **given: Any,
) -> Stage:
    """One evaluation in the contexts, paired with the base where that was evaluated, and set beside the nulls."""
    first = base.stages[0] if base.stages else None
    with s.track(f"evaluate {name}", evals.count(s.config.eval)) as advance:
        found = evals.evaluate(
            of(s, base, **given), name, *contexts, base=first, number=number, dose=dose, advance=advance
        )
    return nulls.beside(found, first, base.nulls, resamples=s.config.eval.resamples) if first else found


def shelved(s: Session, step: Step[T], make: Callable[[], T], decides: Any, **fields: Any) -> T:
    """The step's result in `base/`, taken from the shelf where an earlier run made it of the same base by all that
    `decides` it; the log says so."""
    here = s.folder.path / "base"
    path: Path = here / step.file
    wanted = team.leads() and shelf.on() and not path.exists()
    name = shelf.key(s.model, s.tok, path.name, decides=decides) if wanted else ""
    if name and shelf.fetch(name, path):
        s.folder.finished(step.name, path, 0.0, cached=name, **fields)
    team.same_file(path)
    value = step.once(s.folder, here, make, **fields)
    if name:
        shelf.keep(name, path)
    return value
