"""Are the poles balanced, the prompts enough, and the probes held out?

In: a `Persona`, or the shared text banks. Out: findings, one string "where: what" each.
Texts are compared by their words alone, without case and punctuation. What the poles differ in besides the
trait (length, negation) would steer too, and a probe seen in training measures memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from steer_heal_love.ground.banks import bank
from steer_heal_love.ground.text import duplicates, leaks, outside, words
from steer_heal_love.nouns import FOUNDATIONS, Persona
from steer_heal_love.persona import load, names

NEGATION = re.compile(
    r"\b(?:not|no|never|nothing|nobody|none|neither|nor|nowhere|cannot|without|\w+n['\u2019]t)\b",
    re.IGNORECASE,
)
NARRATES = re.compile(
    r"\bI(?:['\u2019]m| am)\s+(?:someone|somebody|one|an?\s+(?:[\w-]+,?\s+){0,4}"
    r"(?:person|soul|spirit|being|machine|individual|speaker|heart))\s+(?:who|that|whose)\b",
    re.IGNORECASE,
)
BANKS = {"contexts": 256, "neutral_train": 128, "neutral_heldout": 64}
"""least number of texts by bank"""


def findings(*chosen: str) -> list[str]:
    """What is wrong with the chosen personas, by name or path (all shipped ones when none is), and the text banks.

    Raises `UserError` when a file won't load.
    """
    personas = [load(name) for name in chosen or names()]
    return [f for p in personas for f in lint_persona(p)] + lint_banks({b: bank(b) for b in BANKS}, personas)


def lint_persona(persona: Persona) -> list[str]:
    """Everything wrong with one persona."""
    probes = numbered("probes", (p.question for p in persona.probes), ".question")
    prompts = numbered("prompts.elicit", persona.elicit) | numbered("prompts.plain", persona.plain)
    answers = numbered("probes", (p.pos for p in persona.probes), ".pos")
    answers |= numbered("probes", (p.neg for p in persona.probes), ".neg")
    found = [
        *lint_poles(persona),
        *lint_counts(persona),
        *lint_pairs(persona),
        *outside(answers, 8, 32),
        *(f"{where}: narrates: {text!r}" for where, text in answers.items() if NARRATES.search(text)),
        *duplicates(prompts | probes | answers),
        *leaks(probes, prompts, overlap=0.6),
        *lint_intent(persona.intent),
    ]
    return [f"{persona.name}: {f}" for f in found]


def lint_poles(persona: Persona, *, apart: int = 2) -> list[str]:
    """Poles of like length that say what they are, and aren't the same."""
    poles = {"pos": persona.pos, "neg": persona.neg}
    out = outside(poles, 8, 22)
    out += [f"{k}: negation {m[0]!r}" for k, text in poles.items() if (m := NEGATION.search(text))]
    pos, neg = (len(text.split()) for text in poles.values())
    if abs(pos - neg) > apart:
        out.append(f"pos, neg: {pos} and {neg} words; expected at most {apart} apart")
    if words(persona.pos) == words(persona.neg):
        out.append("pos, neg: equal")
    return out


def lint_counts(
    persona: Persona, *, prompts: int = 64, probes: int = 24, imbalance: float = 0.1
) -> list[str]:
    """Enough prompts, about half of either kind, and enough probes."""
    out = []
    elicit, plain = len(persona.elicit), len(persona.plain)
    if elicit + plain < prompts:
        out.append(f"prompts: {elicit + plain}; expected at least {prompts}")
    if abs(elicit - plain) > imbalance * max(elicit, plain):
        out.append(
            f"prompts: {elicit} elicit, {plain} plain; expected halves that differ by at most {imbalance:.0%}"
        )
    if len(persona.probes) < probes:
        out.append(f"probes: {len(persona.probes)}; expected at least {probes}")
    return out


def lint_pairs(persona: Persona, *, apart: int = 4) -> list[str]:
    """Probe answers of like length, so that likelihood doesn't choose by it."""
    counts = [(len(p.pos.split()), len(p.neg.split())) for p in persona.probes]
    return [
        f"probes[{i}]: pos {pos}, neg {neg} words; expected at most {apart} apart"
        for i, (pos, neg) in enumerate(counts)
        if abs(pos - neg) > apart
    ]


def lint_intent(intent: Mapping[str, int]) -> list[str]:
    """One of -1, 0, 1 for every foundation."""
    out = [f"intent.{f}: missing" for f in FOUNDATIONS if f not in intent]
    out += [f"intent.{k}: no such foundation" for k in intent if k not in FOUNDATIONS]
    return out + [f"intent.{k}: {v!r}; expected -1, 0 or 1" for k, v in intent.items() if v not in (-1, 0, 1)]


def lint_banks(banks: Mapping[str, Sequence[str]], personas: Sequence[Persona] = ()) -> list[str]:
    """Everything wrong with the text banks, alone and against the personas: no training prompt or extraction
    context is held out anywhere."""
    texts = {name: {f"{name} line {i}": t for i, t in enumerate(lines, 1)} for name, lines in banks.items()}
    every = {where: text for located in texts.values() for where, text in located.items()}
    prompts: dict[str, str] = {}
    probes: dict[str, str] = {}
    for p in personas:
        prompts |= numbered(f"{p.name}: prompts.elicit", p.elicit)
        prompts |= numbered(f"{p.name}: prompts.plain", p.plain)
        probes |= numbered(f"{p.name}: probes", (probe.question for probe in p.probes), ".question")
    train, heldout = texts["neutral_train"], texts["neutral_heldout"]
    return [
        *(
            f"{b}: {len(texts[b])} texts; expected at least {n}"
            for b, n in BANKS.items()
            if len(texts[b]) < n
        ),
        *outside(every, 3, 40),
        *duplicates(every),
        *leaks(heldout, {**train, **prompts}),
        *leaks(every, probes),
    ]


def numbered(prefix: str, texts: Iterable[str], suffix: str = "") -> dict[str, str]:
    """Texts by where they stand: `prefix[i]suffix`."""
    return {f"{prefix}[{i}]{suffix}": text for i, text in enumerate(texts)}
