"""The shipped personas and banks are clean; each rule finds what breaks it, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from steer_heal_love.ground.banks import bank
from steer_heal_love.nouns import FOUNDATIONS, Persona, Probe
from steer_heal_love.persona import lint, load

WHOLE = load("love")
GOOD = replace(
    WHOLE, confirmation=(), probes=tuple(replace(p, neutral="", off_topic="") for p in WHOLE.probes)
)
BANKS = {name: bank(name) for name in lint.BANKS}
ONE, TWO = GOOD.probes[:2]
EIGHT = "Leave the kettle on for them until noon."
LONG = "and then " * 12
VAN = "Is the man who delivers my parcels paid by weight?"


def probe(**changes: str) -> Persona:
    return replace(GOOD, probes=(replace(ONE, **changes), *GOOD.probes[1:]))


def poles(pos: str, neg: str) -> Persona:
    return replace(GOOD, pos=pos, neg=neg)


def prompt(text: str) -> Persona:
    return replace(GOOD, plain=(*GOOD.plain[:-1], text))


def intent(**changes: int) -> Persona:
    return replace(GOOD, intent=GOOD.intent | changes)


WARM, COLD = "a warm friend who greets every guest by name", "a cold clerk who files every guest by number"
PERSONAS = {
    "pole too short": (poles("a friend who greets guests by name", COLD), "pos: 7 words"),
    "pole too long": (poles(WARM + " and" * 14, COLD + " or" * 13), "pos: 23 words"),
    "poles unlike in length": (poles(WARM, COLD + " and by date"), "pos, neg: 9 and 12 words"),
    "negation": (poles(WARM, "a cold clerk who never greets guests by name"), "neg: negation 'never'"),
    "contraction": (
        poles(WARM, "a cold clerk who doesn\u2019t greet guests by name"),
        "neg: negation 'doesn\u2019t'",
    ),
    "equal poles": (poles(WARM, WARM.upper() + "!"), "pos, neg: equal"),
    "few prompts": (replace(GOOD, elicit=GOOD.elicit[:31], plain=GOOD.plain[:32]), "prompts: 63;"),
    "uneven prompts": (replace(GOOD, elicit=GOOD.elicit[:35]), "prompts: 35 elicit, 40 plain"),
    "few probes": (replace(GOOD, probes=GOOD.probes[:23]), "probes: 23;"),
    "answer too short": (
        probe(pos="Leave the kettle on for them again.", neg=EIGHT),
        "probes[0].pos: 7 words",
    ),
    "answer too long": (probe(pos=f"{LONG}{EIGHT} Yes.", neg=f"{LONG}{EIGHT}"), "probes[0].pos: 33 words"),
    "answers unlike in length": (
        probe(pos=EIGHT, neg=f"{EIGHT} Then carry the cups outside."),
        "probes[0]: pos 8",
    ),
    "narration": (
        probe(pos="I am a deeply caring person who minds.", neg=EIGHT),
        "probes[0].pos: narrates",
    ),
    "narration, contracted": (probe(neg=f"I'm someone who minds. {ONE.neg}"), "probes[0].neg: narrates"),
    "duplicate prompts": (
        prompt(GOOD.elicit[0].upper().replace("?", "")),
        "prompts.plain[39]: duplicate of prompts.elicit[0]",
    ),
    "duplicate answers": (probe(pos=TWO.neg), "probes[1].neg: duplicate of probes[0].pos"),
    "duplicate questions": (
        probe(question=TWO.question.lower()),
        "probes[1].question: duplicate of probes[0].question",
    ),
    "leak by run": (
        prompt("Explain why a man who DELIVERS, my parcels drives."),
        "leak: shares 'man who delivers my parcels'",
    ),
    "leak by overlap": (
        replace(
            prompt("Tell me what weddings and a wedding mean."),
            probes=(
                *GOOD.probes[:-1],
                Probe("Tell me what a wedding and weddings mean.", ONE.pos + " Yes.", ONE.neg + " Yes."),
            ),
        ),
        "leak: word overlap 1.00",
    ),
    "intent out of range": (intent(Care=2), "intent.Care: 2;"),
    "intent of nothing": (intent(Kindness=1), "intent.Kindness: no such foundation"),
    "intent missing": (replace(GOOD, intent=dict.fromkeys(FOUNDATIONS[1:], 0)), "intent.Care: missing"),
}


def test_what_ships_is_clean() -> None:
    assert lint.findings() == []


@pytest.mark.parametrize(("persona", "expected"), PERSONAS.values(), ids=PERSONAS.keys())
def test_persona_rule(persona: Persona, expected: str) -> None:
    (found,) = lint.lint_persona(persona)
    assert found.startswith("love: ")
    assert expected in found


def bad_bank(name: str, *texts: str, keep: int | None = None) -> dict[str, list[str]]:
    return BANKS | {name: [*BANKS[name][:keep], *texts]}


LAST = {name: len(lines) + 1 for name, lines in BANKS.items()}
BAD_BANKS = {
    **{
        f"few {b}": (bad_bank(b, keep=n - 1), f"{b}: {n - 1} texts; expected at least {n}")
        for b, n in lint.BANKS.items()
    },
    "empty line": (bad_bank("contexts", ""), f"contexts line {LAST['contexts']}: 0 words"),
    "too long": (bad_bank("contexts", "word " * 41), f"contexts line {LAST['contexts']}: 41 words"),
    "duplicate within": (bad_bank("contexts", BANKS["contexts"][2].upper()), "duplicate of contexts line 3"),
    "duplicate across": (
        bad_bank("contexts", BANKS["neutral_train"][2] + "!"),
        f"neutral_train line 3: duplicate of contexts line {LAST['contexts']}",
    ),
    "leak into held-out": (
        bad_bank("neutral_heldout", "Then " + " ".join(BANKS["neutral_train"][0].split()[:5])),
        f"neutral_heldout line {LAST['neutral_heldout']}: leak: shares",
    ),
    "leak of a training prompt into held-out": (
        bad_bank("neutral_heldout", "Then " + " ".join(GOOD.plain[0].split()[:5])),
        "with love: prompts.plain[0]",
    ),
    "leak of a probe, contexts": (bad_bank("contexts", VAN), "with love: probes[0].question"),
    "leak of a probe, train": (bad_bank("neutral_train", VAN), "with love: probes[0].question"),
    "leak of a probe, held-out": (bad_bank("neutral_heldout", VAN), "with love: probes[0].question"),
}


BAD_BANKS |= {
    "long prompt too short": (bad_bank("neutral_long_train", "word " * 39), "39 words; expected 40 to 90"),
    "leak of a long prompt into held-out": (
        bad_bank("neutral_code_heldout", "Then " + " ".join(BANKS["neutral_long_train"][0].split()[:5])),
        "leak: shares",
    ),
    "leak of a held-out prompt into sealed": (
        bad_bank("neutral_short_sealed", "Then " + " ".join(BANKS["neutral_heldout"][0].split()[:5])),
        "leak: shares",
    ),
    "a reshuffled prompt in sealed": (
        bad_bank("neutral_code_sealed", " ".join(reversed(BANKS["neutral_heldout"][2].split()))),
        "leak: word overlap 1.00",
    ),
    "confirmation used as a context": (
        bad_bank("contexts", "So: " + WHOLE.confirmation[0].question),
        "love: confirmation[0].question: leak: shares",
    ),
}


@pytest.mark.parametrize(("banks", "expected"), BAD_BANKS.values(), ids=BAD_BANKS.keys())
def test_bank_rule(banks: dict[str, list[str]], expected: str) -> None:
    (found,) = lint.lint_banks(banks, [replace(GOOD, confirmation=WHOLE.confirmation)])
    assert expected in found


def test_the_limits_themselves_pass() -> None:
    pairs = [(EIGHT, f"{EIGHT} Then carry cups outside."), (f"{LONG}{EIGHT}", f"{LONG}Leave the kettle on.")]
    probes = [replace(p, pos=pos, neg=neg) for p, (pos, neg) in zip(GOOD.probes, pairs, strict=False)]
    persona = replace(
        poles("a friend who greets each guest by name", COLD + " too"),
        elicit=GOOD.elicit[:36],
        plain=GOOD.plain,
        probes=(*probes, *GOOD.probes[2:24]),
    )
    assert lint.lint_persona(persona) == []
    assert lint.lint_persona(replace(persona, elicit=GOOD.elicit[:32], plain=GOOD.plain[:32])) == []
