"""Do the third answers match the pos ones, and are the confirmation probes balanced and new?

In: a `Persona`. Out: findings, one string "where: what" each. An answer that is longer, or says "you" more often,
would be told apart by that, not by its attitude; so would one that names its pole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from steer_heal_love.ground.text import Located, duplicates, leaks, outside, words
from steer_heal_love.nouns import Persona, Probe

THIRD = ("neutral", "off_topic")
YOU = re.compile(r"\byou(?:rs?|rself|rselves)?\b", re.IGNORECASE)


def numbered(prefix: str, texts: Iterable[str], suffix: str = "") -> dict[str, str]:
    """Texts by where they stand: `prefix[i]suffix`."""
    return {f"{prefix}[{i}]{suffix}": text for i, text in enumerate(texts)}


def answers(prefix: str, probes: Sequence[Probe]) -> dict[str, str]:
    """Every answer of the probes by where it stands; third answers that aren't given are left out."""
    located: dict[str, str] = {}
    for key in ("pos", "neg", *THIRD):
        located |= numbered(prefix, (getattr(p, key) for p in probes), f".{key}")
    return {where: text for where, text in located.items() if text or not where.endswith(THIRD)}


def lint_third(prefix: str, probes: Sequence[Probe], *, apart: float = 0.25) -> list[str]:
    """Third answers for all probes or none, as long as the pos answer up to the share `apart`."""
    out = []
    for key in THIRD:
        texts = [getattr(p, key) for p in probes]
        if given := [t for t in texts if t]:
            out += [
                f"{prefix}[{i}].{key}: missing; {len(given)} probes have one"
                for i, t in enumerate(texts)
                if not t
            ]
    return out + [
        f"{prefix}[{i}].{key}: {n} words, pos {pos}; expected at most {apart:.0%} apart"
        for i, p in enumerate(probes)
        for key in THIRD
        if (n := len(getattr(p, key).split())) and abs(n - (pos := len(p.pos.split()))) > apart * pos
    ]


def lint_confirmation(persona: Persona, earlier: Located, *, least: int = 16) -> list[str]:
    """Enough confirmation probes, none like an `earlier` text, with answers that only attitude tells apart."""
    probes = persona.confirmation
    if not probes:
        return []
    questions = numbered("confirmation", (p.question for p in probes), ".question")
    given = answers("confirmation", probes)
    return [
        *([f"confirmation: {len(probes)}; expected at least {least}"] if len(probes) < least else []),
        *outside(given, 8, 32),
        *lint_third("confirmation", probes),
        *lint_you(probes),
        *named_poles(persona, probes),
        *leaks(questions, earlier, overlap=0.6),
        *duplicates({**earlier, **questions, **given}),
    ]


def lint_you(probes: Sequence[Probe], *, apart: int = 3) -> list[str]:
    """Like counts of "you" in the answers of either pole, over all probes."""
    pos, neg = (sum(len(YOU.findall(getattr(p, key))) for p in probes) for key in ("pos", "neg"))
    if abs(pos - neg) <= apart:
        return []
    return [f"confirmation: 'you' {pos} times in pos, {neg} in neg; expected at most {apart} apart"]


def named_poles(persona: Persona, probes: Sequence[Probe], *, letters: int = 6) -> list[str]:
    """Answers with a long word of one pole's own description, which would give that pole away."""
    pos, neg = set(words(persona.pos)), set(words(persona.neg))
    telling = {w for w in pos ^ neg if len(w) >= letters}
    return [
        f"{where}: names its pole: {', '.join(sorted(used))}"
        for where, text in answers("confirmation", probes).items()
        if not where.endswith(THIRD) and (used := telling & set(words(text)))
    ]
