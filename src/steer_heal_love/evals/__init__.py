"""The same instruments on every model: base, prompted, steered, healed.

In: a `Subject`, the model under test with whatever contexts are active. Out: per-item values, from which
`stage` makes paired scores. An instrument is one file here with `@instrument(name)`; it measures inside
the model's contexts, and may read what it got with the pristine base afterwards. An optional one runs only
where it is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steer_heal_love.config import EvalConfig
from steer_heal_love.evals.shifts import by_item, scores
from steer_heal_love.ground import records
from steer_heal_love.ground.banks import bank
from steer_heal_love.ground.chat import NEUTRAL_SYSTEM, end_of_turn_ids, prompt_ids
from steer_heal_love.ground.declared import Declared, declare
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.parts import Voice, bare
from steer_heal_love.ground.progress import Advance
from steer_heal_love.ground.registry import Registry
from steer_heal_love.ground.scoring import hidden_states
from steer_heal_love.ground.state_cache import Hidden, StateCache
from steer_heal_love.nouns import Items, Json, Persona, Probe, Sample, Score, Stage, StageName, Tokens

HERE = Path(__file__).parent
Measured = dict[str, Any]
"""what each instrument found inside the contexts, by its name: of its own kind, which only its `outside` reads again"""
BASE = "base"
"""what the pristine base is called in a cache of hidden states"""
OWN, NEUTRAL = "own", "neutral"
"""kinds of answers: of the model under test, and of the base to neutral prompts"""


def kept_as(model: str, kind: str) -> str:
    """What a cache calls a model's states over one kind of answers; nothing where the model has no name there. Kinds are kept
    apart, so that what is read together doesn't depend on what a text of another kind happens to say."""
    return f"{model} {kind}" if model else ""


@dataclass(frozen=True)
class Subject:
    """The model under test and everything an instrument may need of the run."""

    model: PreTrainedModel
    tok: PreTrainedTokenizerBase
    persona: Persona
    config: EvalConfig
    neutral: list[tuple[str, Tokens, Float[Tensor, "_ d"]]]
    """held-out neutral prompts, the base's own answers, the base's hidden states over them"""
    seed: int = 0
    draws: int = 1
    """own samples a prompt"""
    system: str = NEUTRAL_SYSTEM
    shots: tuple[tuple[str, str], ...] = ()
    """questions and answers that stand before every prompt"""
    batch: int = 64
    """samples in flight"""
    batch_tokens: int = 4096
    base_samples: list[Sample] = field(default_factory=list)
    """the base's own samples, for what compares with them; empty while the base itself is measured"""
    samples: list[Sample] = field(default_factory=list)
    """this model's own samples, once they are drawn: each prompt's first"""
    drawn: list[Sample] = field(default_factory=list)
    """all of them, every draw"""
    base_drawn: list[Sample] = field(default_factory=list)
    """every draw of the base's own samples; empty while the base itself is measured"""
    pristine: bool = False
    """this is the base itself, as it answers without being told anything: what compares it with itself needs no reading"""
    speak: Voice | None = None
    """the base's output layer, where `model` is another model with one of its own"""
    prepared: Mapping[str, Json] = field(default_factory=dict)
    """what instruments made once on the pristine base, by their names; one that finds nothing here makes it anew"""
    items: Mapping[str, list[float]] = field(default_factory=dict)
    """what the instruments before this one have read of this model: those of `samples` come first"""
    cache: StateCache = field(default_factory=StateCache)
    """hidden states that instruments share"""
    known_as: str = ""
    """what the model under test is called in `cache`; empty where its states are not kept there"""

    @property
    def probes(self) -> tuple[Probe, ...]:
        """The held-out probes of the wanted half."""
        return chosen_probes(self.persona, self.config)

    def prompt(self, text: str) -> tuple[int, ...]:
        return prompt_ids(self.tok, text, self.system, shots=self.shots)

    def told(self, sample: Sample) -> Tokens:
        """A sample after its prompt as this model is told it."""
        return Tokens(self.prompt(sample["prompt"]), tuple(sample["ids"]))

    def plain(self, sample: Sample, *system: str) -> Tokens:
        """A sample after its prompt as the base is asked, under the neutral system prompt or this one."""
        return Tokens(prompt_ids(self.tok, sample["prompt"], *system), tuple(sample["ids"]))

    def states(self, kind: str, sequences: list[Tokens]) -> Hidden:
        """The final hidden states of the model under test over these answers; ask for them inside its contexts."""
        name = kept_as(self.known_as, kind)
        return self.cache.read(name, self.model, sequences, batch_tokens=self.batch_tokens)

    def base_states(self, sequences: list[Tokens]) -> Hidden:
        """The base's final hidden states over own answers of the model under test; ask for them with the model pristine."""
        return self.cache.read(kept_as(BASE, OWN), self.model, sequences, batch_tokens=self.batch_tokens)

    @property
    def ends(self) -> frozenset[int]:
        return end_of_turn_ids(self.model, self.tok)


def chosen_probes(persona: Persona, config: EvalConfig) -> tuple[Probe, ...]:
    """The probes that `eval.probe_half` and `eval.probes` name. Raises `UserError` where the persona has none."""
    halves = {"all": slice(None), "search": slice(0, None, 2), "report": slice(1, None, 2)}
    half = config.probe_half
    probes = persona.confirmation if half == "confirmation" else persona.probes[halves[half]]
    if not probes:
        raise UserError(
            f"persona {persona.name!r} has no probes for eval.probe_half = {half!r}; it needs tables [[{half}]]."
        )
    return probes[: config.probes]


@dataclass(frozen=True)
class Instrument:
    """`inside` runs on the model under test; `outside` turns its result into items with the pristine base;
    `ready` raises `UserError` before any model is loaded when something that it needs is not there; `prepare` makes,
    once a run on the pristine base, what all stages share: JSON-ready, found again as `Subject.prepared[name]`."""

    name: str
    inside: Callable[[Subject], Any]
    outside: Callable[[Subject, Any], Items]
    ready: Callable[[EvalConfig], Any]
    optional: bool
    prepare: Callable[[Subject], Any] | None = None


instruments: Registry[Instrument] = Registry("instrument", __name__)


def instrument(
    name: str,
    outside: Callable[[Subject, Any], Items] = lambda _subject, items: items,
    *,
    ready: Callable[[EvalConfig], Any] = lambda _config: None,
    optional: bool = False,
    prepare: Callable[[Subject], Any] | None = None,
    scores: tuple[Declared, ...] = (),
) -> Callable[[Callable[[Subject], Any]], Callable[[Subject], Any]]:
    """Register `inside`; without `outside`, it returns the items itself. Items that are no more than means need no
    entry in `scores`: it says which are shifts from base, and what the report shows."""
    declare(*scores)

    def register(inside: Callable[[Subject], Any]) -> Callable[[Subject], Any]:
        instruments.register(name, Instrument(name, inside, outside, ready, optional, prepare))
        return inside

    return register


def wanted(config: EvalConfig) -> list[Instrument]:
    """The instruments that are named, or all but the optional ones; `UserError` for a name there isn't."""
    if config.instruments:
        return [instruments[name] for name in config.instruments]
    return [i for i in instruments.values() if not i.optional]


def ready(config: EvalConfig) -> None:
    """Raise `UserError` for what the wanted instruments lack: a bank that doesn't load, a missing package."""
    for i in wanted(config):
        i.ready(config)


def drawn_by(name: str) -> Callable[[EvalConfig], None]:
    """A `ready` for an instrument that reads what `samples` draws."""

    def check(config: EvalConfig) -> None:
        if "samples" not in [i.name for i in wanted(config)]:
            raise UserError(f"instrument {name!r} reads what instrument 'samples' draws; name both.")

    return check


def prepared(
    subject: Subject, once: Callable[[str, Callable[[], Any]], Any] = lambda _name, make: make()
) -> dict[str, Json]:
    """What the wanted instruments share over all stages, by name; call with the model pristine. `once(name, make)`
    may keep what `make` makes."""
    return {i.name: once(i.name, partial(i.prepare, subject)) for i in wanted(subject.config) if i.prepare}


def bank_hashes(config: EvalConfig) -> dict[str, str]:
    """A hash of every file in this room that questions are read from, and of one's own bank of vignettes."""
    files = {f.stem: f for f in sorted(HERE.iterdir()) if f.suffix in (".jsonl", ".toml")}
    own = Path(config.vignette_bank)
    files |= {"vignette_bank": own} if own.is_file() else {}
    return {name: records.hash_text(f.read_text(encoding="utf-8")) for name, f in files.items()}


def measure(subject: Subject, advance: Advance = lambda _n: None) -> Measured:
    """Run every wanted instrument inside the contexts that are active now, `samples` first: others read its text."""
    out: Measured = {}
    for i in sorted(wanted(subject.config), key=lambda i: i.name != "samples"):
        out[i.name] = i.inside(subject)
        if i.name == "samples":
            subject = with_samples(subject, out["samples"])
        advance(1)
    return out


def with_samples(subject: Subject, drawn: list[Sample]) -> Subject:
    return replace(subject, samples=first_draws(drawn), drawn=drawn)


def count(config: EvalConfig) -> int:
    """Steps that one evaluation reports: an instrument each, and the reading by the base."""
    return len(wanted(config)) + 1


def collect_items(subject: Subject, measured: Measured) -> Items:
    """Items of every instrument; call with the model pristine."""
    subject = with_samples(subject, measured.get("samples", []))
    items: Items = {}
    for name, result in measured.items():
        items |= instruments[name].outside(replace(subject, items=items), result)
    return items


def evaluate(
    subject: Subject,
    name: StageName,
    *contexts: Callable[[], AbstractContextManager[None]],
    base: Stage | None = None,
    other: PreTrainedModel | None = None,
    number: int = -1,
    dose: float | None = None,
    advance: Advance = lambda _n: None,
) -> Stage:
    """One evaluation: inside the contexts first, then with the model pristine again. Without `base`, it is the base.

    `other`: a whole model of the same vocabulary that is measured instead, and read by the subject's as the base.
    """
    under_test = replace(subject, model=other, speak=bare(subject.model)) if other is not None else subject
    if subject.pristine and other is None:
        under_test = replace(under_test, known_as=BASE)
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context())
        found = measure(under_test, advance)
    items = collect_items(subject, found)
    advance(1)
    paired_with = base.items if base else items
    return stage(number, name, items, paired_with, found, config=subject.config, dose=dose)


def first_draws(samples: list[Sample]) -> list[Sample]:
    """Of every prompt the sample that was drawn first."""
    return list({s["prompt"]: s for s in reversed(samples)}.values())[::-1]


def stage(
    round: int,
    name: StageName,
    items: Items,
    base: Items,
    measured: Measured,
    *,
    config: EvalConfig,
    dose: float | None = None,
) -> Stage:
    """The record of one evaluation."""
    drawn = measured.get("samples", [])
    samples = first_draws(drawn)
    first = {id(s) for s in samples}
    more = [s for s in drawn if id(s) not in first]
    return Stage(round, name, scores(items, base, resamples=config.resamples), items, samples, dose, more)


def by_kind(subject: Subject, prompts: list[str], name: str, values: list[float]) -> Items:
    """Items of own samples under `name`, and apart for probe questions and for neutral prompts, where there are both."""
    questions = {p.question for p in subject.probes}
    kinds = {
        "probes": [v for p, v in zip(prompts, values, strict=True) if p in questions],
        "neutral": [v for p, v in zip(prompts, values, strict=True) if p not in questions],
    }
    return {name: values} | {f"{name}.{kind}": part for kind, part in kinds.items() if part}


def neutral_reference(
    model: PreTrainedModel,
    tok: PreTrainedTokenizerBase,
    prompts: list[str],
    answers: list[tuple[int, ...]],
    batch_tokens: int,
) -> list[tuple[str, Tokens, Float[Tensor, "_ d"]]]:
    """The base's own answers to neutral prompts with its hidden states over them; model pristine."""
    tokens = [Tokens(prompt_ids(tok, p), a) for p, a in zip(prompts, answers, strict=True)]
    return list(zip(prompts, tokens, hidden_states(model, tokens, batch_tokens=batch_tokens), strict=True))


def sample_prompts(subject: Subject) -> list[str]:
    """Held-out probe questions, then as many held-out neutral prompts."""
    n = subject.config.sample_prompts
    return [p.question for p in subject.probes[:n]] + bank("neutral_heldout")[::-1][:n]


__all__ = [
    "Instrument",
    "Score",
    "Subject",
    "by_item",
    "by_kind",
    "chosen_probes",
    "drawn_by",
    "evaluate",
    "instrument",
    "instruments",
    "measure",
    "prepared",
    "read",
    "ready",
    "scores",
    "stage",
    "wanted",
]
