"""What a draft of a persona lacks, written by a model that is told whom to be: a first draft for a person to edit.

In: a `Sheet` laid out by `persona.draft`, and the settings that name a model. Out: the same with a neg pole and with
answers. The neg pole is the candidate that breaks the fewest rules of `shl lint`. An answer is the beginning of what the base
says when it is told to be a pole, cut at the end of a sentence, and of several pairs the one that differs most in

    e(y) = [log p(y | pos) − log p(y | neg)] per token,   e(y_pos) − e(y_neg)

among pairs of like length. Such probes ask how near a model comes to what its own prompt would make of it. That is less
than a person's probes ask, and so the draft says who wrote it, which words a written neg pole shares with the pos pole, and
which probes differ least: those are to be rewritten first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any, Literal

from steer_heal_love import filter as sieve
from steer_heal_love.config import RunConfig
from steer_heal_love.generate import generate
from steer_heal_love.ground.chat import answer_ids
from steer_heal_love.ground.progress import Track, silent
from steer_heal_love.ground.text import count_words, words
from steer_heal_love.ground.untrusted.tables import UNWANTED
from steer_heal_love.nouns import Completion, Persona, Probe, Tokens
from steer_heal_love.persona.importers import Sheet
from steer_heal_love.persona.lint import NARRATES
from steer_heal_love.persona.poles import as_pole, unfitness
from steer_heal_love.session import loaded

POLES, ANSWERS = 8, 3
"""candidates for the neg pole, and for each answer"""
LENGTH = 48
"""tokens of a candidate"""
WORDS = 8, 32
"""words that `shl lint` allows an answer"""
APART = 4
"""words that the answers of a probe may be apart"""
ASK = (
    "Here is a description of somebody: {pos}. Describe the very opposite of that in one phrase of about {n} words, "
    "beginning with the word a."
)
LEAD = re.compile(r"^(?:the )?opposite[^:]{0,40}(?::| is | would be )\s*", re.IGNORECASE)
WEAKEST = 8
"""drafted probes that are named as those to rewrite first"""
LONG = 4
"""letters from which a word that both poles have is named"""
ENDS = re.compile(r"(?<=[.!?])[\"'”’)]*\s+")


def filled(sheet: Sheet, cfg: RunConfig, *, track: Track = silent) -> Sheet:
    """The sheet with what the model that `cfg` names could write. A pole that nothing can be drafted from stays empty."""
    wanting = not sheet.neg or any(not (p.pos and p.neg) for p in sheet.pairs)
    if not sheet.pos or not wanting:
        return sheet
    model, tok = loaded(cfg, track)
    drafted = list(sheet.drafted)
    neg = sheet.neg
    if not neg and (neg := opposite(model, tok, sheet.pos, cfg, track)):
        drafted.append(neg_told(cfg.model, sheet.pos, neg))
    pairs = sheet.pairs
    if neg:
        pairs, apart = answered(model, tok, replace(persona(sheet), neg=neg), pairs, cfg, track)
        drafted += answers_told(cfg.model, apart)
    return replace(sheet, neg=neg, pairs=pairs, drafted=drafted)


def neg_told(model: str, pos: str, neg: str) -> str:
    """Who wrote the neg pole, and the longer words that it shares with the pos pole: an opposite shares few."""
    both = [w for w in dict.fromkeys(words(neg)) if w in set(words(pos)) and len(w) >= LONG]
    shared = f" It shares {', '.join(both)} with the pos pole." if both else ""
    return f"{model} wrote the neg pole, and nothing here checks that it is the opposite.{shared} Give your own with --opposite, or edit it."


def answers_told(model: str, apart: dict[int, float]) -> list[str]:
    """Who wrote answers, and of which probes they differ least: `apart` has e(y_pos) − e(y_neg) by the probe's place."""
    lines = [
        f"{model} wrote the answers of {len(apart)} probes, so those ask how near a model comes to its own prompted self."
    ]
    if weakest := sorted(apart, key=lambda i: apart[i])[:WEAKEST]:
        named = ", ".join(f"probes[{i}] {apart[i]:+.2f}" for i in weakest)
        lines.append(
            f"To be rewritten first, as their answers differ least in which pole {model} takes them for (nats/token): {named}."
        )
    return lines


def persona(sheet: Sheet) -> Persona:
    return Persona(sheet.name, sheet.axis, sheet.pos, sheet.neg, {}, (), (), ())


def opposite(model: Any, tok: Any, pos: str, cfg: RunConfig, track: Track) -> str:
    """The candidate that makes the least unfit pair of poles; empty where the model says nothing of use."""
    ask = ASK.format(pos=pos, n=count_words(pos))
    made = generate(
        model,
        tok,
        [ask] * POLES,
        [0.0],
        config=cfg.generate,
        seed=cfg.seed,
        max_new_tokens=LENGTH,
        label="draft the neg pole",
        track=track,
    )
    found = [as_pole(LEAD.sub("", clean(c.text).split("\n")[0].strip(" \"'“”*"))) for c in made]
    fit = [f for f in found if f and f != pos]
    return min(fit, key=lambda neg: unfitness(pos, neg), default="")


def clean(text: str) -> str:
    """A model's text without control characters."""
    return UNWANTED.sub("", text).strip()


def answered(
    model: Any, tok: Any, who: Persona, pairs: Sequence[Probe], cfg: RunConfig, track: Track
) -> tuple[list[Probe], dict[int, float]]:
    """The probes, each that lacks an answer with the best pair of drafts, and how far apart each drafted pair is.

    A probe for which no draft will do stays as it was.
    """
    open_ = [i for i, p in enumerate(pairs) if p.question and not (p.pos and p.neg)]
    asked = [pairs[i].question for i in open_ for _ in range(ANSWERS)]

    def said(side: Literal["pos", "neg"], seed: int) -> list[tuple[str, float]]:
        made = generate(
            model,
            tok,
            asked,
            [0.0],
            config=cfg.generate,
            seed=seed,
            max_new_tokens=LENGTH,
            system=who.system(side),
            label=f"draft {side} answers",
            track=track,
        )
        return evidence(model, tok, who, made, cfg)

    pos, neg = said("pos", cfg.seed), said("neg", cfg.seed + 1)
    out, apart = list(pairs), {}
    for n, i in enumerate(open_):
        here = slice(n * ANSWERS, (n + 1) * ANSWERS)
        out[i], difference = best(pairs[i], pos[here], neg[here])
        if out[i] != pairs[i]:
            apart[i] = difference
    return out, apart


def evidence(
    model: Any, tok: Any, who: Persona, made: list[Completion], cfg: RunConfig
) -> list[tuple[str, float]]:
    """What is left of each draft, and its evidence e; empty text where nothing will do."""
    cuts = ["" if echoes(c.prompt, t := cut(c.text)) else t for c in made]
    kept = [
        replace(c, text=t, tokens=Tokens(c.tokens.prompt, answer_ids(tok, t)))
        for c, t in zip(made, cuts, strict=True)
        if t
    ]
    if kept:
        sieve.measured(model, tok, kept, who, ("on_trait",), batch_tokens=cfg.batch_tokens)
    values = iter(c.checks["on_trait"] for c in kept)
    return [(t, next(values) if t else 0.0) for t in cuts]


def echoes(question: str, text: str) -> bool:
    """Whether an answer holds the whole question again."""
    return " ".join(words(question)) in " ".join(words(text))


def cut(text: str) -> str:
    """As many whole sentences of the first paragraph as an answer may have; empty where they are too few words."""
    least, most = WORDS
    kept = ""
    for sentence in ENDS.split(" ".join(clean(text).split("\n\n")[0].split())):
        longer = f"{kept} {sentence}".strip()
        if count_words(longer) > most or sentence[-1:] not in set(".!?\"'”’)"):
            break
        kept = longer
        if count_words(kept) >= 2 * least:
            break
    return kept if count_words(kept) >= least and not NARRATES.search(kept) else ""


def best(probe: Probe, pos: list[tuple[str, float]], neg: list[tuple[str, float]]) -> tuple[Probe, float]:
    """The probe with the pair of like length that differs most, and by how much in nats/token; with a pair of any length
    where none is alike. The probe itself and NaN where there is no pair."""
    both = [(p, n) for p, n in product(pos, neg) if p[0] and n[0] and p[0] != n[0]]
    if not both:
        return probe, math.nan
    alike = [(p, n) for p, n in both if abs(count_words(p[0]) - count_words(n[0])) <= APART]
    (p, e_pos), (n, e_neg) = max(alike or both, key=lambda pair: pair[0][1] - pair[1][1])
    return replace(probe, pos=probe.pos or p, neg=probe.neg or n), e_pos - e_neg
