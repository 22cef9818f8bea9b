"""The steps that `loop.py` tells the order of: each takes what it needs of the run, and hands on what a room made.

Nothing here is written or logged but warnings; `before` and `control` alone keep what they make, since every round needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from jaxtyping import Float
from torch import Tensor, empty

from steer_heal_love import bake, evals
from steer_heal_love import filter as sieve
from steer_heal_love.config import GenerateConfig
from steer_heal_love.evals import neutral, nulls, transfer, wording
from steer_heal_love.filter.kept import sampled
from steer_heal_love.filter.walk import tally, walk
from steer_heal_love.generate import generate
from steer_heal_love.ground import folder as files
from steer_heal_love.ground import records, shelf
from steer_heal_love.ground.banks import bank, mix
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.ground.progress import Advance
from steer_heal_love.ground.scoring import hidden_states
from steer_heal_love.ground.states import States
from steer_heal_love.ground.weights import folded
from steer_heal_love.heal.train import Example, anchor_kl, apart, heal, split
from steer_heal_love.heal.trust import STEPS, largest_scale
from steer_heal_love.nouns import Adapter, Completion, Look, Stage, StageName
from steer_heal_love.persona import training_prompts
from steer_heal_love.session import OWN_SAMPLES, Run, yardstick
from steer_heal_love.vector import Vector

T = TypeVar("T")
ANCHOR_SEED = 0
"""of the base's answers that bound the heal, the same in every run; neutral_kl's own seed is in `evals.neutral`"""
NOTHING = empty(0, 0)
"""the reference of an example that isn't compared with one"""
LOOK_TOKENS = 28
"""of an answer that is only looked at"""
DRAWS = 8
"""passes over the prompts that an unsteered answer is still wanted for"""


def before(r: Run) -> None:
    """What every round needs of the pristine base: its own answers, the filter's bounds, its scores."""
    here, cfg = r.folder.path / "base", r.config
    text = cfg.generate

    def answer(drawn: GenerateConfig, seed: int, label: str, prompts: list[str], n: int) -> list[Completion]:
        return generate(
            r.model, r.tok, prompts, [0.0], config=drawn, seed=seed, max_new_tokens=n, label=label, track=r.track
        )  # fmt: skip

    training = training_prompts(r.persona, cfg.filter.calibration, seed=r.seed(0))
    anchors, drifts = mix(cfg.heal.anchor_kinds, "train", cfg.heal.anchor_prompts), neutral.prompts(cfg.eval)
    wanted = {
        "anchor": lambda: answer(yardstick(cfg), ANCHOR_SEED, "base: anchor", [text for _, text in anchors], cfg.heal.anchor_tokens),
        "neutral": lambda: answer(yardstick(cfg), neutral.SEED, "base: neutral", [text for _, text in drifts], cfg.eval.sample_tokens),
        "calibration": lambda: r.measured(answer(text, r.seed(0, 2), "base: calibration", training, text.max_new_tokens)),
    }  # fmt: skip
    decides = {
        "anchor": (yardstick(cfg), anchors, cfg.heal.anchor_tokens),
        "neutral": (yardstick(cfg), drifts, cfg.eval.sample_tokens),
        "calibration": (text, training, r.seed(0, 2), r.persona, cfg.filter.checks, cfg.batch_tokens),
    }  # fmt: skip
    answers = {
        name: shelved(
            r, here / f"{name}.jsonl", files.load_completions, files.save_completions, make, decides[name]
        )
        for name, make in wanted.items()
    }
    tokens = {name: [c.tokens for c in made] for name, made in answers.items()}
    with r.track("base: states", len(tokens["anchor"] + tokens["neutral"])) as advance:
        states = {
            n: hidden_states(r.model, tokens[n], batch_tokens=cfg.batch_tokens, advance=advance)
            for n in ("anchor", "neutral")
        }
    r.anchor = [
        Example(c.tokens, h, c.prompt) for c, h in zip(answers["anchor"], states["anchor"], strict=True)
    ]
    r.neutral = [(c.prompt, c.tokens, h) for c, h in zip(answers["neutral"], states["neutral"], strict=True)]
    r.bounds = sieve.calibrate(answers["calibration"], cfg.filter.quantile)
    records.write_json(here / "bounds.json", r.bounds)
    records.write_json(here / "checks.json", sieve.sides(r.bounds))
    r.calibration = sieve.judge(answers["calibration"], r.bounds)
    r.coherent = sum(c.coherent for c in r.calibration) / len(r.calibration)

    asked = (cfg.eval, evals.bank_hashes(cfg.eval), r.persona, cfg.generate.batch, cfg.batch_tokens)
    told = shelved(
        r, here / "wording.json", records.read_json, files.save_json, lambda: asdict(worded(r)), asked,
        room="evaluate", round=-1,
    )  # fmt: skip

    def traced() -> nulls.Nulls:
        with r.track("nulls", 1) as advance:
            found = nulls.traced(subject(r), r.calibration) if cfg.eval.nulls else {}
            advance(1)
        return found

    plain = asked, tokens["neutral"], tokens["calibration"]
    r.nulls = shelved(r, here / "nulls.json", nulls.load, nulls.save, traced, plain, room="nulls")

    def prepared(name: str, make: Callable[[], Any]) -> Any:
        seeded = plain, subject(r).seed
        return shelved(r, here / f"{name}.json", records.read_json, files.save_json, make, seeded)

    r.prepared = evals.prepared(subject(r), prepared)

    def evaluate() -> list[Stage]:
        r.stages = [evaluated(r, "base", -1, draws=cfg.eval.base_draws)]
        return [*r.stages, evaluated(r, "prompt", -1, system=told["system"])]

    measured = asked, told["system"], tokens["neutral"], subject(r).seed
    r.stages = shelved(
        r, here / "scores.json", files.load_stages, files.save_stages, evaluate, measured, room="evaluate", round=-1
    )  # fmt: skip


def shelved(
    r: Run, path: Path, load: Callable[[Path], T], save: Callable[[T, Path], None], make: Callable[[], T], decides: Any, *,
    room: str = "base", **fields: Any,
) -> T:  # fmt: skip
    """`once`, but for what an earlier run made of the same base by all that `decides` it; the log says so."""
    name = "" if path.exists() or not shelf.on() else shelf.key(r.model, r.tok, path.name, decides=decides)
    if name and shelf.fetch(name, path):
        r.folder.finished(room, path, 0.0, cached=name, **fields)
    value = r.folder.once(room, path, load, save, make, **fields)
    if name:
        shelf.keep(name, path)
    return value


def worded(r: Run) -> wording.Chosen:
    """The system prompt of the prompted model: the best of the wordings where probes are asked, else the first."""
    if not r.config.eval.wordings or not any(i.name == "probes" for i in evals.wanted(r.config.eval)):
        return wording.Chosen(0, r.persona.system("pos"), [])
    with r.track("choose the prompt's wording", wording.count()) as advance:
        return wording.choose(subject(r), advance)


def contexts(r: Run) -> list[str]:
    """What the vector, and later the student's own shift, is read over."""
    return bank("contexts")[: r.config.vector.contexts]


def steer(r: Run) -> Vector:
    cfg = r.config.vector
    with r.student():
        return Vector.train(
            r.model, r.tok, r.persona, contexts=contexts(r), method=cfg.method,
            contrast=cfg.contrast, layers=cfg.layers, batch_tokens=r.config.batch_tokens, track=r.track,
        )  # fmt: skip


def first_look(r: Run, vector: Vector) -> list[Look]:
    """The base's answer to one held-out question, and the answer steered at the dose that the walk tries first."""
    dose = r.config.walk.start
    with r.track("first look", 1) as advance:
        base, steered = answered(r, vector, [0.0, dose])
        advance(1)
    return [Look("base", -1, asked(r), base), Look("steered", 0, asked(r), steered, dose)]


def look(r: Run, number: int, vector: Vector, dose: float) -> list[Look]:
    """The same question to the student that the round steered, at the dose it found, and to the healed one."""
    with r.track("look", 2) as advance:
        with folded(r.model, r.history[:-1]):
            (steered,) = answered(r, vector, [dose])
        advance(1)
        with exported(r, r.history):
            (healed,) = answered(r, vector, [0.0])
        advance(1)
    return [Look("steered", number, asked(r), steered, dose), Look("healed", number, asked(r), healed)]


def asked(r: Run) -> str:
    return r.persona.probes[0].question


def answered(r: Run, vector: Vector, doses: list[float]) -> list[str]:
    """The likeliest answer at each dose to the question that is looked at."""
    config = replace(r.config.generate, temperature=0.0)
    made = generate(
        r.model, r.tok, [asked(r)], doses, config=config, directions=vector.directions, seed=0,
        max_new_tokens=LOOK_TOKENS,
    )  # fmt: skip
    return [c.text for c in made]


def sample_and_filter(r: Run, number: int, vector: Vector) -> list[Completion]:
    """Walk the dose: each pass samples the student at several doses and lets the pristine base judge."""
    cfg, passes = r.config, iter(range(10_000))

    def attempt(doses: list[float]) -> list[Completion]:
        seed = r.seed(1, number, next(passes))
        prompts = training_prompts(r.persona, cfg.generate.prompts, seed=seed)
        label = f"generate at {doses[0]:.2g}–{doses[-1]:.2g}"
        with r.student():
            made = generate(
                r.model, r.tok, prompts, doses, config=cfg.generate, directions=vector.directions, seed=seed,
                track=r.track, label=label,
            )  # fmt: skip
        return sieve.judge(r.measured(made), r.bounds)

    start = r.rounds[-1]["dose"] if r.rounds else None
    found = walk(attempt, cfg.walk, base=r.coherent, start=start, least=cfg.filter.least)
    eligible = [c for c in found.completions if found.dose is not None and c.dose <= found.dose]
    sieve.select(eligible, cfg.filter.keep)
    return found.completions


def counted(r: Run, number: int, vector: Vector, completions: list[Completion]) -> dict[str, Any]:
    """The round's row: what the walk and the filter counted, what the vector says of itself."""
    counts = tally(completions, r.config.walk, r.coherent)
    first = Vector.load(r.folder.round(0) / "vector.safetensors")
    starved = counts["dose"] is None or counts["used"] < r.config.filter.least
    return {
        "round": number, **counts, **sampled(completions, r.calibration, counts["dose"]), "starved": starved,
        "vector_norm": vector.norm(), "cosine_with_first": vector.cosine(first),
        "reliability": vector.meta["reliability"],
    }  # fmt: skip


def train(r: Run, number: int, used: list[Completion], vector: Vector) -> tuple[Adapter, dict[str, Any]]:
    """Heal on the student; the barrier's reference is the pristine base or that student itself."""
    cfg, seed = r.config, r.seed(2, number)
    bare = [Example(c.tokens, NOTHING, c.prompt) for c in used]
    kept = referred(r, bare, seed) if cfg.heal.reference == "base" else bare
    with r.student():
        if cfg.heal.reference == "previous":
            kept = referred(r, bare, seed)
        if cfg.heal.soft:
            kept = [replace(e, teacher=t) for e, t in zip(kept, taught(r, used, vector), strict=True)]
        adapter, record = heal(
            r.model, kept, r.anchor, cfg.heal, round=number, seed=seed, batch_tokens=cfg.batch_tokens,
            track=r.track,
        )  # fmt: skip
    if cfg.heal.budget:
        record.scale, record.spent = trusted(r, number, adapter)
    for warning in record.warnings:
        r.folder.event("warning", round=number, message=warning)
    return adapter.scaled(record.scale), asdict(record)


def referred(r: Run, kept: list[Example], seed: int) -> list[Example]:
    """With the model's hidden states as it stands, for those examples that the heal will compare with them: all where
    the barrier is on, else those held out for the curve."""
    cfg = r.config
    _, held = split(kept, cfg.heal.validation, seed)
    asked_of = {e.prompt for e in held}
    wanted = [i for i, e in enumerate(kept) if cfg.heal.lam or e.prompt in asked_of]
    states = hidden_states(r.model, [kept[i].tokens for i in wanted], batch_tokens=cfg.batch_tokens)
    found = dict(zip(wanted, states, strict=True))
    return [replace(e, reference=found.get(i, NOTHING)) for i, e in enumerate(kept)]


def taught(r: Run, used: list[Completion], vector: Vector) -> list[Float[Tensor, "t d"]]:
    """The teacher's final hidden states over each completion: the unsteered student's, moved along what the vector
    does to them and its opposite undoes, h₀ + g/2·(h₊ − h₋) with g = `heal.teacher`, at the dose that round 0 found.

    Logits are linear in these states, so the difference is one of logits. What steering does in either direction,
    flattening above all, cancels in it.
    """
    dose = r.rounds[0]["dose"] if r.rounds else 0.0

    with r.track("teacher", 3 * len(used)) as advance:

        def read(steering: AbstractContextManager[Any]) -> list[Tensor]:
            with steering:
                tokens = [c.tokens for c in used]
                return hidden_states(r.model, tokens, batch_tokens=r.config.batch_tokens, advance=advance)

        toward, away, as_it_is = (
            read(vector(r.model, dose)),
            read(vector(r.model, -dose)),
            read(nullcontext()),
        )
    step = r.config.heal.teacher / 2
    return [
        (plain.float() + step * (pos.float() - neg.float())).to(plain)
        for plain, pos, neg in zip(as_it_is, toward, away, strict=True)
    ]


def trusted(r: Run, number: int, adapter: Adapter) -> tuple[float, float]:
    """The scale at which the model, as it will be exported, stays inside this round's part of the budget; its cost."""
    cfg = r.config
    _, held = apart(r.anchor, cfg.heal.anchor_validation)
    before = r.rounds[-2]["healing"] if number else {}
    spent = before.get("spent", 0.0)

    if not held:
        return 1.0, spent
    budget = cfg.heal.budget * (number + 1) / cfg.rounds
    with r.track("trust region", STEPS) as advance:

        def cost_nats(scale: float) -> float:
            with exported(r, [*r.history, adapter.scaled(scale)]):
                found = anchor_kl(r.model, held, cfg.batch_tokens)
            advance(1)
            return found

        return largest_scale(cost_nats, budget, spent_nats=spent, start=before.get("scale") or 0.5)


def exported(r: Run, rounds: list[Adapter]) -> AbstractContextManager[None]:
    """The model that users get: all rounds as one LoRA beside the pristine weights."""
    whole = bake.stack(rounds)
    return adapted(r.model, whole.factors, whole.scaling)


def subject(r: Run, **told: Any) -> evals.Subject:
    """What every instrument is given of this run. `told`: what it has that others don't, such as a `system` prompt."""
    cfg = r.config
    base = r.stages[0] if r.stages else Stage(-1, "base", {}, {})
    return evals.Subject(
        r.model, r.tok, r.persona, cfg.eval, r.neutral, seed=r.seed(OWN_SAMPLES), batch=cfg.generate.batch,
        batch_tokens=cfg.batch_tokens, base_samples=base.samples, base_drawn=[*base.samples, *base.redrawn],
        prepared=r.prepared, **told,
    )  # fmt: skip


def evaluated(
    r: Run, name: StageName, number: int, *contexts: Any, dose: float | None = None, **told: Any
) -> Stage:
    """One evaluation in the contexts, paired with the run's base and set beside the nulls."""
    base = r.stages[0] if r.stages else None
    with r.track(f"evaluate {name}", evals.count(r.config.eval)) as advance:
        found = evals.evaluate(
            subject(r, **told), name, *contexts, base=base, number=number, dose=dose, advance=advance
        )
    return nulls.beside(found, base, r.nulls, resamples=r.config.eval.resamples) if base else found


def scored(r: Run, number: int, vector: Vector, dose: float) -> list[Stage]:
    """This round's student, steered, as it was before its heal; and the model that all rounds make."""
    steered = (lambda: folded(r.model, r.history[:-1]), lambda: vector(r.model, dose))
    return [
        evaluated(r, "steered", number, *steered, dose=dose),
        evaluated(r, "healed", number, lambda: exported(r, r.history), draws=r.config.eval.healed_draws),
    ]


def unsteered(r: Run, used: list[Completion]) -> list[Completion]:
    """The base's own text in place of `used`: for each, another answer to its prompt that the filter keeps, no text
    twice, from the calibration or else drawn. What DRAWS passes don't find is left out."""
    found: dict[int, Completion] = {}
    wanted = lambda: [i for i in range(len(used)) if i not in found]

    def drawn(n: int) -> list[Completion]:
        prompts = [used[i].prompt for i in wanted()]
        made = generate(
            r.model, r.tok, prompts, [0.0], config=r.config.generate, seed=r.seed(5, n), track=r.track,
            label="generate unsteered",
        )  # fmt: skip
        return sieve.judge(r.measured(made), r.bounds)

    for n in range(DRAWS + 1):
        for c in drawn(n) if n else r.calibration:
            at = next((i for i in wanted() if used[i].prompt == c.prompt), None)
            if at is not None and c.kept and c.text not in {f.text for f in found.values()}:
                found[at] = replace(c, used=True)
        if not wanted():
            break
    return [found[i] for i in sorted(found)]


def control(r: Run) -> Vector:
    """The own shift of a student healed as round 0's was, but on the base's unsteered text. Made once a run."""
    here, first, once = r.folder.path / "base" / "control", r.folder.round(0), r.folder.once
    vector = Vector.load(first / "vector.safetensors")
    # Its warnings are its own: they go to a log beside it. Without rounds there is no dose: its teacher is itself.
    bare = replace(r, history=[], rounds=[], folder=files.RunFolder(here))
    text = once(
        "control", here / "completions.jsonl", files.load_completions, files.save_completions,
        lambda: unsteered(r, [c for c in files.load_completions(first / "completions.jsonl") if c.used]),
    )  # fmt: skip
    adapter, _ = once(
        "control", here / "healing.json", load_healed, save_healed, lambda: train(bare, 0, text, vector)
    )

    def moved() -> Vector:
        shift, _ = own_shift(r, vector, [adapter])
        return Vector(shift, {"method": "own shift, unsteered control", "texts": len(text)})

    return once("control", here / "shift.safetensors", Vector.load, Vector.save, moved)


def own_shift(
    r: Run, vector: Vector, rounds: list[Adapter], advance: Advance = lambda _n: None
) -> tuple[dict[int, Float[Tensor, " d"]], States]:
    """How far these rounds move the base by themselves, at the vector's layers; and the base's states there."""
    return transfer.own_shift(
        subject(r), contexts(r), sorted(vector.directions), lambda: exported(r, rounds), advance
    )


def got_in(r: Run, number: int, vector: Vector, plain: Vector | None) -> dict[str, Any]:
    """What the healed student carries of the vector by itself, beside the control's shift, and what that cost."""
    cfg, seed = r.config, r.seed(4, number)
    s, full = subject(r), cfg.eval.transfer == "full"
    base, healed = r.stages[0], r.stages[-1]
    student, previous = (lambda: exported(r, r.history)), (lambda: exported(r, r.history[:-1]))
    with r.track("transfer", transfer.count(s, contexts(r), healed, full=full)) as advance:
        shift, states = own_shift(r, vector, r.history, advance)
        here = r.folder.round(number) / "shift.safetensors"
        Vector(shift, {"method": "own shift", "round": number}).save(here)
        first = Vector.load(r.folder.round(0) / "shift.safetensors")
        out = transfer.alignment(shift, vector.directions, states, seed=seed)
        out["cosine_with_first_shift"] = transfer.cosine(shift, first.directions)
        if plain is not None:
            out["control"] = transfer.along(plain.directions, vector.directions) | plain.meta
        if full:
            out["ledger"] = transfer.ledger(s, student, previous, healed, advance)
        if full and "trait" in base.items:
            out["causes"] = transfer.causes(s, shift, student, base, healed, seed=seed, advance=advance)
    return out


def save_healed(value: tuple[Adapter, dict[str, Any]], path: Path) -> None:
    adapter, record = value
    bake.save_peft(adapter, path.parent / "adapter", base_model="see manifest.json")
    records.write_json(path, record)


def load_healed(path: Path) -> tuple[Adapter, dict[str, Any]]:
    return bake.load_peft(path.parent / "adapter"), records.read_json(path)
