"""Somebody's fine-tuning data: read through the gate for files from outside, checked, split.

A line of the file is `{"prompt": "…", "answer": "…"}`, or `{"messages": [{"role": "user", "content": "…"}, …]}` whose last
message is the assistant's. Only that last answer is learned; what went before it is its prompt. Nothing of the file is
executed, and what is wrong with it is listed at once.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from steer_heal_love.ground import records
from steer_heal_love.ground.chat import NEUTRAL_SYSTEM, answer_ids, prompt_ids, template_end
from steer_heal_love.ground.untrusted import MEGABYTE, json_lines, known, refuse
from steer_heal_love.nouns import Tokens

LEAST, MOST, LONGEST = 16, 20_000, 20_000
"""rows a file must have and may have; characters of one text"""
HELD, MOST_HELD = 0.2, 128
"""share of the prompts held out, and at most so many rows"""


@dataclass(frozen=True)
class Row:
    """One conversation: system message, earlier turns as (user, assistant), the last question and the answer to learn."""

    system: str
    shots: tuple[tuple[str, str], ...]
    prompt: str
    answer: str

    def tokens(self, tok: PreTrainedTokenizerBase) -> Tokens:
        """The rendered prompt, and the answer with the token that ends a turn."""
        end = template_end(tok)
        ends = (tok.eos_token_id if end is None else end,)
        ids = tuple(prompt_ids(tok, self.prompt, self.system, shots=self.shots))
        return Tokens(ids, answer_ids(tok, self.answer) + ends)


@dataclass(frozen=True)
class Split:
    train: list[Row]
    held: list[Row]


def read(path: Path) -> list[Row]:
    """Every row of the file. Raises `UserError` that lists what is wrong with it."""
    name, rows, wrong = f"fine-tuning data {path}", [], []
    for number, found in json_lines(path, name, most=64 * MEGABYTE):
        mistakes = found.all([])
        row = None if mistakes else row_of(found.data, mistakes)
        wrong += [f"line {number}: {m}" for m in mistakes]
        if row and not mistakes:
            rows.append(row)
    if not wrong and not LEAST <= len(rows) <= MOST:
        wrong.append(f"from {LEAST} to {MOST} rows, found {len(rows)}")
    refuse(name, wrong)
    return rows


def row_of(data: Any, wrong: list[str]) -> Row | None:
    """A row of either form; what keeps it from being one is added to `wrong`."""
    if not isinstance(data, dict):
        wrong.append(
            f"expected an object with prompt and answer, or with messages, found {type(data).__name__}"
        )
        return None
    if "messages" in data:
        wrong += known(data, ("messages",))
        return conversation(data["messages"], wrong)
    wrong += known(data, ("prompt", "answer"))
    wrong += [f"{key}: {what}" for key in ("prompt", "answer") if (what := unfit(data.get(key)))]
    return None if wrong else Row(NEUTRAL_SYSTEM, (), data["prompt"], data["answer"])


def conversation(messages: Any, wrong: list[str]) -> Row | None:
    """A row from chat messages: perhaps a system message, then user and assistant by turns, the assistant last."""
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        wrong.append("messages: expected a list of objects with role and content")
        return None
    for i, m in enumerate(messages):
        wrong += [f"messages[{i}].{k}" for k in known(m, ("role", "content"))]
        wrong += [f"messages[{i}].content: {what}" for what in [unfit(m.get("content"))] if what]
    system = messages[0].get("content") if messages and messages[0].get("role") == "system" else None
    turns = messages[system is not None :]
    if [m.get("role") for m in turns] != ["user", "assistant"] * max(1, len(turns) // 2):
        wrong.append(
            "messages: expected user and assistant by turns after the system message, the assistant last"
        )
    if wrong:
        return None
    said = [m["content"] for m in turns]
    shots = tuple(zip(said[:-2:2], said[1:-2:2], strict=True))
    return Row(NEUTRAL_SYSTEM if system is None else system, shots, said[-2], said[-1])


def unfit(text: Any) -> str:
    """What keeps a value from being a text to learn from; nothing for most."""
    if not isinstance(text, str):
        return f"expected text, found {type(text).__name__}"
    if not text.strip():
        return "expected text, found none"
    return f"{len(text)} characters, at most {LONGEST}" if len(text) > LONGEST else ""


def split(rows: list[Row], *, seed: int) -> Split:
    """Rows to train on and held-out ones; a prompt is wholly on one side. At most `MOST_HELD` rows are held, of prompts in a
    drawn order: a file may be sorted by what it is about."""
    prompts = sorted({r.prompt for r in rows})
    random.Random(seed).shuffle(prompts)
    out = {p: i for i, p in enumerate(prompts[: max(2, round(HELD * len(prompts)))])}
    held = sorted((r for r in rows if r.prompt in out), key=lambda r: out[r.prompt])
    return Split([r for r in rows if r.prompt not in out], held[:MOST_HELD])


def save_split(given: Split, path: Path) -> None:
    lines = [
        {"held": held, "system": r.system, "shots": r.shots, "prompt": r.prompt, "answer": r.answer}
        for held, side in ((False, given.train), (True, given.held))
        for r in side
    ]
    with records.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    records.write_jsonl(path, lines)


def load_split(path: Path) -> Split:
    """The rows of a run; its folder may come from anywhere too. Raises `UserError` for a broken file."""
    sides: dict[bool, list[Row]] = {False: [], True: []}
    for number, found in json_lines(path, str(path), most=128 * MEGABYTE):
        d = found.data
        fine = isinstance(d, dict) and set(d) == {"held", "system", "shots", "prompt", "answer"}
        texts = (
            [d["system"], d["prompt"], d["answer"], *(t for pair in d["shots"] for t in pair)]
            if fine
            else [None]
        )
        if not fine or found.mistakes or not all(isinstance(t, str) for t in texts):
            refuse(str(path), [f"line {number}: no row of a run's"])
        shots = tuple((q, a) for q, a in d["shots"])
        sides[bool(d["held"])].append(Row(d["system"], shots, d["prompt"], d["answer"]))
    return Split(sides[False], sides[True])
