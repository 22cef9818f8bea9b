"""A draft of a persona's file: what a sheet gives, topped up by templates, with what is missing said in its head.

In: a `Sheet`. Out: a table of a persona's form, findings, and the file's text. Questions are split by a seed: half of those
without answers train, the rest are held out with answers to write; rows with answers are held out, and where there are
more than twice as many as are needed, the questions of the rest train. Templates fill up what is too few: everyday
questions of the bank `neutral_train`, and the two lists of situations beside this file.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tomli_w

from steer_heal_love.ground.banks import bank
from steer_heal_love.ground.shown import shown
from steer_heal_love.ground.text import words
from steer_heal_love.nouns import Json, Probe
from steer_heal_love.persona.importers import Sheet
from steer_heal_love.persona.table import LONGEST, mistakes

PROMPTS, PROBES = 32, 24
"""prompts of either kind, and probes, that `shl lint` asks for"""
HERE = Path(__file__).parent


def situations(part: str) -> list[str]:
    """This project's own situations in which an attitude shows: `train` or `heldout`."""
    return (HERE / f"situations_{part}.txt").read_text(encoding="utf-8").splitlines()


def laid_out(sheet: Sheet, *, seed: int) -> Sheet:
    """The same with enough questions on either side: `questions` train, `pairs` are held out, their answers perhaps empty."""
    asked = shuffled(distinct(sheet.questions), seed)
    pairs = shuffled(sheet.pairs, seed)
    held = max(PROBES, len(pairs) // 2) if len(pairs) > 2 * PROBES else len(pairs)
    train = [p.question for p in pairs[held:] if p.question]
    free = min(len(asked) // 2, max(0, PROBES - held))
    pairs = pairs[:held] + [Probe(q, "", "") for q in asked[:free]]
    train, most = distinct([*asked[free:], *train]), len(bank("neutral_train"))
    left_out, drafted = list(sheet.left_out), list(sheet.drafted)
    if len(train) > most:
        left_out.append(
            f"{len(train) - most} of {len(train)} questions to train on: there are as many plain ones as {most}."
        )
        train = train[:most]
    if (lacking := PROMPTS - len(train)) > 0:
        drafted.append(f"{lacking} of prompts.elicit are this project's own situations.")
        train += situations("train")[:lacking]
    if (lacking := PROBES - len(pairs)) > 0:
        drafted.append(f"{lacking} questions of probes are this project's own.")
        pairs += [Probe(q, "", "") for q in situations("heldout")[:lacking]]
    return Sheet(
        sheet.name,
        sheet.axis or f"{sheet.name}, as against its opposite",
        sheet.pos,
        sheet.neg,
        train,
        pairs,
        left_out,
        sheet.beside,
        drafted,
    )


def distinct(texts: Iterable[str]) -> list[str]:
    """The texts without those whose words were there before."""
    first: dict[tuple[str, ...], str] = {}
    for text in texts:
        first.setdefault(tuple(words(text)), text)
    return list(first.values())


def shuffled(items: list[Any], seed: int) -> list[Any]:
    return random.Random(seed).sample(items, len(items))


def table(sheet: Sheet) -> Json:
    """What a persona's file holds, in its order."""
    plain = bank("neutral_train")[: max(PROMPTS, len(sheet.questions))]
    return {
        "name": sheet.name[: LONGEST["name"]],
        "axis": sheet.axis[: LONGEST["axis"]],
        "pos": sheet.pos,
        "neg": sheet.neg,
        "prompts": {"elicit": sheet.questions, "plain": plain},
        "probes": [{"question": p.question, "pos": p.pos, "neg": p.neg} for p in sheet.pairs],
    }


def missing(data: Mapping[str, Any]) -> list[str]:
    """What keeps a table from being a persona: empty poles, counted empty answers, and every other mistake."""
    probes = data["probes"]
    empty = {key: sum(not p[key] for p in probes) for key in ("question", "pos", "neg")}
    gone = [f"{key}: missing" for key in ("pos", "neg") if not data[key]]
    gone += [f"probes: {n} of {len(probes)} have no {key} yet" for key, n in empty.items() if n]
    blank = {key for key in ("pos", "neg") if not data[key]} | {
        f"probes[{i}].{key}" for i, p in enumerate(probes) for key in empty if not p[key]
    }
    return gone + [m for m in mistakes(data) if m.partition(": ")[0] not in blank]


def file_text(data: Mapping[str, Any], origin: str, sheet: Sheet, lacking: list[str], lint: list[str]) -> str:
    """The draft as TOML, its head in comments."""
    parts = {
        "Missing, so it does not load yet:": lacking,
        "Written by templates or a model:": [
            *sheet.drafted,
            f"The {len(data['prompts']['plain'])} prompts.plain are this project's everyday questions.",
        ],
        "Left out of the file:": sheet.left_out,
        "What shl lint finds:": lint,
        "More of the file's words, to write the poles from:": sheet.beside[:40],
    }
    head = [f"A DRAFT, {origin}. Read and edit every line, then run shl lint on it."]
    for title, lines in parts.items():
        if lines:
            head += ["", title, *(f"  {line}" for line in lines)]
    comments = "".join(f"# {shown(line)[:400]}".rstrip() + "\n" for line in head)
    return f"{comments}\n{tomli_w.dumps(dict(data))}"


def findings(data: Mapping[str, Any]) -> list[str]:
    """What `shl lint` finds in a table that is a persona."""
    from steer_heal_love.persona import made
    from steer_heal_love.persona.lint import BANKS, lint_banks, lint_persona

    who = made(data)
    return lint_persona(who) + lint_banks({b: bank(b) for b in BANKS}, [who])
