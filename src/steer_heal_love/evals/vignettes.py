"""Moral-foundation vignettes by likelihood: what kind of wrong does the model see?

For vignette i and foundation f, s_if is the mean log-likelihood per token of that foundation's answer
sentences (averaged over paraphrases). The profile is its centred log-ratio over foundations, per token:

    clr_if = s_if − mean_f s_if

Reported as shift from base, paired by vignette; against human labels as `evals.labels` says. Compare only pairs
over the same items: values depend on the bank. Banks: ours, one's own, and those of tinymfv, as JSON lines.

A shift is one of sentences, not of what the model sees: most of it may be the same after every vignette, the sentence
having become likelier everywhere. `evals.profile` says how much (`mfv_constant_share`), and puts the paraphrases' own
spread into the intervals where there are several; with one paraphrase an interval is about that sentence alone.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from steer_heal_love.config import EvalConfig
from steer_heal_love.evals import Subject, instrument
from steer_heal_love.evals.labels import against_labels
from steer_heal_love.evals.profile import SENTENCE
from steer_heal_love.ground.chat import answer_ids
from steer_heal_love.ground.declared import Declared
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.shown import shown
from steer_heal_love.ground.trees import branch_nll
from steer_heal_love.ground.untrusted import json_lines, nearest, refuse, whole_number
from steer_heal_love.nouns import FOUNDATIONS, Items, Json

HERE = Path(__file__).parent
KEYS = ("id", "foundation", "foundation_coarse", "see", "you", "text", *(f"human_{f}" for f in FOUNDATIONS))
LONGEST = 4_000
"""characters of a scene: past that a forward pass takes gigabytes"""
MOST = 20_000
"""vignettes of a bank"""
QUESTION = "{text}\n\nWhat, if anything, is wrong with this? Answer in one sentence."


@dataclass(frozen=True)
class Vignette:
    """A scene, the foundation that people say it violates (None where nobody was asked), and their shares."""

    id: str
    foundation: str | None
    text: str
    shares: tuple[float, ...] | None = None
    """share of people that named each foundation, where the bank has it"""


def load_bank(path: Path = HERE / "vignettes.jsonl", view: str = "see") -> list[Vignette]:
    """Vignettes of a JSONL file; every mistake at once, by line.

    A row has an `id`, a text under `view` (`see` or `you`) or `text`, and a label under `foundation_coarse` or
    `foundation`; `human_<Foundation>` in percent are optional, and so is whatever else a bank has. A bank has all its
    labels or none.
    """
    rows, problems = read_rows(path)
    labelled = any(label(row) is not None for row in rows.values())
    seen: set[str] = set()
    out = []
    for number, row in rows.items():
        found, key, text = label(row), row.get("id"), row.get(view) or row.get("text")
        if found is None and labelled:
            problems[number].append("no foundation, though other lines have one")
        elif found not in (*FOUNDATIONS, None):
            problems[number].append(
                f"foundation {found!r:.60}; there is {', '.join(FOUNDATIONS)}{nearest(str(found), FOUNDATIONS)}"
            )
        if not (isinstance(text, str) and text.strip()):
            problems[number].append(f"no text under {view!r} or 'text'")
        elif len(text) > LONGEST:
            problems[number].append(f"a text of {len(text)} characters, at most {LONGEST}")
        if not (isinstance(key, str) or whole_number(key)) or str(key) in seen:
            problems[number].append(f"id {key!r:.60} is missing or a duplicate")
        seen.add(str(key))
        problems[number] += misspelt(row)
        try:
            out.append(Vignette(str(key), found, str(text), shares(row)))
        except ValueError as e:
            problems[number].append(str(e))
    refuse(str(path), [f"line {number}: {p}" for number in sorted(problems) for p in problems[number]])
    if not out:
        raise UserError(f"{shown(path)}: no vignettes; expected one JSON object a line.")
    return out


def read_rows(path: Path) -> tuple[dict[int, Json], dict[int, list[str]]]:
    """JSON objects by line, and what is wrong with the other lines."""
    if not path.is_file():
        raise UserError(f"vignette file {str(path)!r} does not exist.")
    rows: dict[int, Json] = {}
    problems: dict[int, list[str]] = defaultdict(list)
    for number, found in json_lines(path, f"vignette file {path}"):
        problems[number] += found.all([])
        if isinstance(found.data, dict):
            rows[number] = found.data
        elif not found.mistakes:
            problems[number].append(f"expected a JSON object, found {type(found.data).__name__}")
        if len(rows) > MOST:
            raise UserError(f"vignette file {shown(path)}: more than {MOST} vignettes.")
    return rows, problems


def misspelt(row: Json) -> list[str]:
    """Keys that are nearly one that is read and isn't there; any other is a bank's own affair."""
    missing = [key for key in KEYS if key not in row]
    near = ((key, nearest(key, missing, least=0.85)) for key in row if key not in KEYS)
    return [f"unknown key {key!r:.60}{guess}" for key, guess in near if guess]


def label(row: Json) -> str | None:
    """The row's foundation by our name: "Care (p, h)" is Care, "Social Norms" SocialNorms; None when it has none."""
    found = row.get("foundation_coarse") or row.get("foundation")
    return re.sub(r"\(.*\)|\s", "", str(found)) if found else None


def shares(row: Json) -> tuple[float, ...] | None:
    """Shares of the people asked that named each foundation, summing to 1; None where the row has none."""
    found: list[Any] = [row.get(f"human_{f}") for f in FOUNDATIONS]
    if all(x is None for x in found):
        return None
    number = lambda x: isinstance(x, int | float) and not isinstance(x, bool)
    if not all(number(x) and 0 <= x < math.inf for x in found) or not 0 < sum(found) < math.inf:
        raise ValueError(f"human_…: expected {len(FOUNDATIONS)} shares, found {found!r:.200}")
    return tuple(x / sum(found) for x in found)


def foundations() -> Json:
    """What is said for each foundation: `answers`, sentences in the same frames for all, and `options`."""
    return tomllib.loads((HERE / "foundations.toml").read_text(encoding="utf-8"))


def answers() -> dict[str, list[str]]:
    """Answer sentences by foundation, the same frames for all."""
    return foundations()["answers"]


def balanced(bank: list[Vignette], n: int) -> list[Vignette]:
    """The first n vignettes taken in turn from each foundation; in their order where there are no labels."""
    by = {f: [v for v in bank if v.foundation == f] for f in (*FOUNDATIONS, None)}
    turns = [v for k in range(max(map(len, by.values()))) for vs in by.values() for v in vs[k : k + 1]]
    return turns[:n]


def scenes(config: EvalConfig) -> list[Vignette]:
    """The vignettes that are asked about, of the wanted bank in the wanted view."""
    bank = Path(config.vignette_bank) if config.vignette_bank else HERE / "vignettes.jsonl"
    return balanced(load_bank(bank, config.vignette_view), config.vignettes)


def log_scores(s: Subject, bank: list[Vignette]) -> Float[np.ndarray, "n f p"]:
    """[n, foundations, paraphrases] mean log-likelihood per token; paraphrase p has one frame for all foundations."""
    sentences = [answer_ids(s.tok, t) for f in FOUNDATIONS for t in answers()[f][: s.config.paraphrases]]
    prompts = [s.prompt(QUESTION.replace("{text}", v.text)) for v in bank]
    nll = branch_nll(s.model, prompts, [sentences] * len(prompts), batch_tokens=s.batch_tokens)
    return -np.asarray(nll).reshape(len(bank), len(FOUNDATIONS), -1)


def read_scores(name: str, score: Float[np.ndarray, "n f"], asked: list[Vignette]) -> Items:
    """The centred log-ratio over foundations, a list of items each, and how it agrees with the labels."""
    clr = score - score.mean(1, keepdims=True)
    items = {f"{name}.{f}": clr[:, i].tolist() for i, f in enumerate(FOUNDATIONS)}
    return items | against_labels(name, score, [v.foundation for v in asked], [v.shares for v in asked])


SCORES = (
    Declared("mfv_top1", 80, column=True),
    Declared("mfv_constant_share", 81, column=True),
)


@instrument("vignettes", ready=scenes, scores=SCORES)
def vignettes(s: Subject) -> Items:
    asked = scenes(s.config)
    table = log_scores(s, asked)
    return read_scores("mfv", table.mean(2), asked) | by_sentence(table)


def by_sentence(table: Float[np.ndarray, "n f p"]) -> Items:
    """Each paraphrase's own profile, the mean over vignettes, for the intervals of the scores; nothing where there is
    one paraphrase, whose draw can't be told from what it says."""
    if table.shape[2] < 2:
        return {}
    profile = (table - table.mean(1, keepdims=True)).mean(0)
    return {f"{SENTENCE}{f}": row.tolist() for f, row in zip(FOUNDATIONS, profile, strict=True)}
