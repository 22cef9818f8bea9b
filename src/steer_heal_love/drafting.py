"""What a draft of a persona lacks, written by a model that is told whom to be: a first draft for a person to edit.

In: a `Sheet` laid out by `persona.draft`, and the settings that name a model. Out: the same with a neg pole and with
answers. The neg pole is the candidate that breaks the fewest rules of `shl lint`. An answer is the beginning of what the base
says when it is told to be a pole, cut at the end of a sentence, and of several pairs the one that differs most in

    e(y) = [log p(y | pos) − log p(y | neg)] per token,   e(y_pos) − e(y_neg)

among pairs of like length. Such probes ask how near a model comes to what its own prompt would make of it. That is less
than a person's probes ask, and so the draft says who wrote it.
"""

from __future__ import annotations

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
from steer_heal_love.ground.text import count_words
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
        drafted.append(f"{cfg.model} wrote the neg pole.")
    pairs = sheet.pairs
    if neg:
        pairs = answered(model, tok, replace(persona(sheet), neg=neg), pairs, cfg, track)
        written = sum(new != old for new, old in zip(pairs, sheet.pairs, strict=True))
        drafted.append(
            f"{cfg.model} wrote the answers of {written} probes, so those ask how near a model comes to its own prompted self."
        )
    return replace(sheet, neg=neg, pairs=pairs, drafted=drafted)


def persona(sheet: Sheet) -> Persona:
    return Persona(sheet.name, sheet.axis, sheet.pos, sheet.neg, {}, (), (), ())


def opposite(model: Any, tok: Any, pos: str, cfg: RunConfig, track: Track) -> str:
    """The candidate that makes the least unfit pair of poles; empty where the model says nothing of use."""
    ask = ASK.format(pos=pos, n=count_words(pos))
    made = generate(
        model, tok, [ask] * POLES, [0.0], config=cfg.generate, seed=cfg.seed, max_new_tokens=LENGTH, label="draft the neg pole",
        track=track,
    )  # fmt: skip
    found = [as_pole(LEAD.sub("", clean(c.text).split("\n")[0].strip(" \"'“”*"))) for c in made]
    fit = [f for f in found if f and f != pos]
    return min(fit, key=lambda neg: unfitness(pos, neg), default="")


def clean(text: str) -> str:
    """A model's text without control characters."""
    return UNWANTED.sub("", text).strip()


def answered(
    model: Any, tok: Any, who: Persona, pairs: Sequence[Probe], cfg: RunConfig, track: Track
) -> list[Probe]:
    """The probes, each that lacks an answer with the best pair of drafts; unchanged where no draft will do."""
    open_ = [p for p in pairs if p.question and not (p.pos and p.neg)]
    asked = [p.question for p in open_ for _ in range(ANSWERS)]

    def said(side: Literal["pos", "neg"], seed: int) -> list[tuple[str, float]]:
        made = generate(
            model, tok, asked, [0.0], config=cfg.generate, seed=seed, max_new_tokens=LENGTH, system=who.system(side),
            label=f"draft {side} answers", track=track,
        )  # fmt: skip
        return read(model, tok, who, made, cfg)

    pos, neg = said("pos", cfg.seed), said("neg", cfg.seed + 1)
    drafts: dict[str, Probe] = {}
    for i, probe in enumerate(open_):
        here = slice(i * ANSWERS, (i + 1) * ANSWERS)
        drafts[probe.question] = best(probe, pos[here], neg[here])
    return [drafts.get(p.question, p) if not (p.pos and p.neg) else p for p in pairs]


def read(
    model: Any, tok: Any, who: Persona, made: list[Completion], cfg: RunConfig
) -> list[tuple[str, float]]:
    """What is left of each draft, and its evidence e; empty text where nothing will do."""
    cuts = [cut(c.text) for c in made]
    kept = [
        replace(c, text=t, tokens=Tokens(c.tokens.prompt, answer_ids(tok, t)))
        for c, t in zip(made, cuts, strict=True)
        if t
    ]
    scored = sieve.score(model, tok, kept, who, batch_tokens=cfg.batch_tokens) if kept else []
    values = iter(c.checks["on_trait"] for c in sieve.measure(scored, ("on_trait",)))
    return [(t, next(values) if t else 0.0) for t in cuts]


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


def best(probe: Probe, pos: list[tuple[str, float]], neg: list[tuple[str, float]]) -> Probe:
    """The pair of like length that differs most; of any length where none is alike; the probe itself where there is none."""
    both = [(p, n) for p, n in product(pos, neg) if p[0] and n[0] and p[0] != n[0]]
    if not both:
        return probe
    alike = [(p, n) for p, n in both if abs(count_words(p[0]) - count_words(n[0])) <= APART]
    (p, _), (n, _) = max(alike or both, key=lambda pair: pair[0][1] - pair[1][1])
    return replace(probe, pos=probe.pos or p, neg=probe.neg or n)
