"""Are the poles balanced, the prompts enough, and the probes held out?

In: a `Persona`, or the shared text banks. Out: findings, one string "where: what" each.
Texts are compared by their words alone, without case and punctuation. What the poles differ in besides the
trait (length, negation) would steer too, and a probe seen in training measures memory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from steer_heal_love.ground.banks import bank
from steer_heal_love.ground.text import duplicates, leaks, outside, words
from steer_heal_love.nouns import FOUNDATIONS, Persona
from steer_heal_love.persona import load, names
from steer_heal_love.persona.lint_probes import answers, lint_confirmation, lint_third, numbered

NEGATION = re.compile(
    r"\b(?:not|no|never|nothing|nobody|none|neither|nor|nowhere|cannot|without|\w+n['\u2019]t)\b",
    re.IGNORECASE,
)
NARRATES = re.compile(
    r"\bI(?:['\u2019]m| am)\s+(?:someone|somebody|one|an?\s+(?:[\w-]+,?\s+){0,4}"
    r"(?:person|soul|spirit|being|machine|individual|speaker|heart))\s+(?:who|that|whose)\b",
    re.IGNORECASE,
)
KINDS = ("long", "code", "languages")
BANKS = {
    "contexts": 256,
    "neutral_train": 128,
    "neutral_heldout": 64,
    "neutral_short_sealed": 24,
    **{
        f"neutral_{k}_{part}": n
        for k in KINDS
        for part, n in (("train", 54), ("heldout", 32), ("sealed", 24))
    },
}
"""least number of texts by bank"""
WORDS = {"long": (40, 90), "languages": (1, 40)}
"""least and most words of a text by kind of bank, where they aren't 3 and 40; Chinese has no spaces to count by"""


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
    given = answers("probes", persona.probes)
    found = [
        *lint_poles(persona),
        *lint_counts(persona),
        *lint_pairs(persona),
        *lint_third("probes", persona.probes),
        *outside(given, 8, 32),
        *(f"{where}: narrates: {text!r}" for where, text in given.items() if NARRATES.search(text)),
        *duplicates(prompts | probes | given),
        *leaks(probes, prompts, overlap=0.6),
        *lint_confirmation(persona, prompts | probes),
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
    context is held out anywhere, and nothing sealed or kept for confirmation is used elsewhere."""
    texts = {name: {f"{name} line {i}": t for i, t in enumerate(lines, 1)} for name, lines in banks.items()}
    every = {where: text for located in texts.values() for where, text in located.items()}
    parts = {
        end: {
            where: t for name, located in texts.items() if name.endswith(end) for where, t in located.items()
        }
        for end in ("_train", "_heldout", "_sealed")
    }
    prompts: dict[str, str] = {}
    probes: dict[str, str] = {}
    confirmation: dict[str, str] = {}
    for p in personas:
        prompts |= numbered(f"{p.name}: prompts.elicit", p.elicit)
        prompts |= numbered(f"{p.name}: prompts.plain", p.plain)
        probes |= numbered(f"{p.name}: probes", (probe.question for probe in p.probes), ".question")
        confirmation |= numbered(f"{p.name}: confirmation", (c.question for c in p.confirmation), ".question")
    return [
        *(
            f"{b}: {len(texts[b])} texts; expected at least {n}"
            for b, n in BANKS.items()
            if len(texts[b]) < n
        ),
        *(f for name, located in texts.items() for f in outside(located, *limits(name))),
        *duplicates(every),
        *leaks(parts["_heldout"], {**parts["_train"], **prompts}),
        *leaks(parts["_sealed"], {**parts["_train"], **parts["_heldout"], **prompts}, overlap=0.6),
        *leaks(every, probes),
        *leaks(confirmation, {**every, **prompts, **probes}, overlap=0.6),
    ]


def limits(bank_name: str) -> tuple[int, int]:
    """Least and most words of a text in that bank."""
    return next((w for kind, w in WORDS.items() if f"_{kind}_" in bank_name), (3, 40))
