"""Can it still add, recall and follow a format? A panel of questions, read by likelihood.

The panel comes in blocks of four questions that share four answers, answer k being right for question k. With
z_kj the mean NLL per token of answer j to question k, and z̄_j its mean over the block's questions:

    right_k  = 1 where k = argmin_j (z_kj − z̄_j)
    margin_k = mean_{j≠k} z_kj − z_kk      (nats/token)

Invariant: a model that does not read the question (z_kj the same for all k) has a mean margin of exactly 0, and
chance is 1 in 4, however much it likes one answer. `capability` is the share of right_k, `.<kind>` by kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from steer_heal_love.evals import Subject, instrument
from steer_heal_love.ground.chat import answer_ids
from steer_heal_love.ground.declared import Declared
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.shown import shown
from steer_heal_love.ground.trees import branch_nll
from steer_heal_love.ground.untrusted import MEGABYTE, refuse, toml
from steer_heal_love.nouns import Items

HERE = Path(__file__).parent
KINDS = ("arithmetic", "factual", "format")
WIDTH = 4
"""questions, and answers, a block"""


@dataclass(frozen=True)
class Block:
    """Questions that share their answers; `start` is how the model's answer begins."""

    kind: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    start: str = ""


def load_panel(path: Path = HERE / "capability.toml") -> list[Block]:
    """The blocks of a panel. Raises `UserError` with every mistake, by block."""
    found = toml(path, f"panel {path}", most=4 * MEGABYTE)
    rows = found.data.get("blocks")
    if not isinstance(rows, list) or not rows:
        raise UserError(f"panel {shown(path)}: expected tables [[blocks]], found {rows!r:.60}.")
    problems = [f"blocks[{i}].{p}" for i, row in enumerate(rows) for p in mistakes(row)]
    refuse(str(path), found.all(problems))
    return [Block(r["kind"], tuple(r["questions"]), tuple(r["answers"]), r.get("start", "")) for r in rows]


def mistakes(row: Any) -> list[str]:
    """What keeps this table from being a block, each line beginning with the key."""
    if not isinstance(row, dict):
        return [f": expected a table, found {row!r:.60}"]
    out = []
    if row.get("kind") not in KINDS:
        out.append(f"kind: {row.get('kind')!r}; there is {', '.join(KINDS)}")
    for key in ("questions", "answers"):
        texts = row.get(key)
        if not isinstance(texts, list) or len(texts) != WIDTH:
            out.append(f"{key}: expected {WIDTH} texts, found {texts!r:.60}")
        elif not all(isinstance(t, str) and t.strip() for t in texts):
            out.append(f"{key}: expected texts, found {texts!r:.60}")
        elif len(set(texts)) < WIDTH:
            out.append(f"{key}: expected {WIDTH} different texts, found {texts!r:.60}")
    if not isinstance(row.get("start", ""), str):
        out.append(f"start: expected a text, found {row['start']!r:.60}")
    return out + [f"{key}: unknown key" for key in row.keys() - {"kind", "questions", "answers", "start"}]


def first_of_each_kind(panel: list[Block], blocks: int) -> list[Block]:
    """The first `blocks` of each kind."""
    return [b for kind in KINDS for b in [b for b in panel if b.kind == kind][:blocks]]


def read_blocks(s: Subject, panel: list[Block]) -> np.ndarray:
    """[blocks, questions, answers] mean NLL per token."""
    prompts = [s.prompt(q) + answer_ids(s.tok, b.start) for b in panel for q in b.questions]
    answers = [
        [answer_ids(s.tok, f" {a}" if b.start else a) for a in b.answers] for b in panel for _ in b.questions
    ]
    nll = branch_nll(s.model, prompts, answers, batch_tokens=s.batch_tokens)
    return np.asarray(nll).reshape(len(panel), WIDTH, WIDTH)


def right_and_margin(nll: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[blocks, questions] of whether the right answer is chosen, and its margin in nats per token."""
    right = (nll - nll.mean(1, keepdims=True)).argmin(2) == np.arange(WIDTH)
    own = np.einsum("bkk->bk", nll)
    return right.astype(float), (nll.sum(2) - own) / (WIDTH - 1) - own


SCORES = (
    Declared(
        "capability",
        70,
        interval="share",
        block=WIDTH,
        column=True,
        means="Share of sums, facts and formats answered right, by likelihood; 0.25 by chance.",
    ),
    Declared("capability_shift", 71, items="capability", shift="rise", block=WIDTH),
    Declared("capability_margin_shift", 72, items="capability_margin", shift="rise", block=WIDTH),
)


@instrument("capability", scores=SCORES)
def capability(s: Subject) -> Items:
    panel = first_of_each_kind(load_panel(), s.config.capability_blocks)
    right, margin = right_and_margin(read_blocks(s, panel))
    items: Items = {}
    for name, values in (("capability", right), ("capability_margin", margin)):
        items[name] = values.ravel().tolist()
        for kind in KINDS:
            items[f"{name}.{kind}"] = values[[b.kind == kind for b in panel]].ravel().tolist()
    return items
