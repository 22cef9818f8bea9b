"""Does the capability panel ask what it says it asks, and is no answer given away by its form?

In: blocks of a panel. Out: findings, one string "where: what" each. Sums are worked out again here.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence

from steer_heal_love.evals.capability import KINDS, Block, load_panel
from steer_heal_love.ground.text import duplicates, outside, words

OPERATORS = {
    "+": operator.add,
    "plus": operator.add,
    "minus": operator.sub,
    "times": operator.mul,
    "divided by": operator.truediv,
}
SIGN = "|".join(re.escape(sign) for sign in OPERATORS)
SUM = re.compile(rf"\d+(?: (?:{SIGN}) \d+)+")


def findings() -> list[str]:
    """What is wrong with the shipped panel. Raises `UserError` when its file won't load."""
    return lint_panel(load_panel())


def lint_panel(panel: Sequence[Block], *, least: int = 10) -> list[str]:
    """Everything wrong with a panel: counts by kind, duplicates, lengths, wrong sums, answers given away."""
    counts = {kind: sum(b.kind == kind for b in panel) for kind in KINDS}
    out = [
        f"panel: {n} blocks of {kind}; expected at least {least}" for kind, n in counts.items() if n < least
    ]
    questions = {
        f"panel[{i}].questions[{k}]": q for i, b in enumerate(panel) for k, q in enumerate(b.questions)
    }
    for i, block in enumerate(panel):
        where = f"panel[{i}]"
        if block.kind == "arithmetic":
            out += lint_sums(block, where)
        if block.kind == "factual":
            out += lint_facts(block, where)
    return [*out, *outside(questions, 4, 14), *duplicates(questions)]


def lint_sums(block: Block, where: str) -> list[str]:
    """Answers that are not the result of their sum, or not of one length."""
    out = []
    for k, (question, answer) in enumerate(zip(block.questions, block.answers, strict=True)):
        found = SUM.search(question)
        if found is None:
            out.append(f"{where}.questions[{k}]: no sum such as '2 + 3' in {question!r}")
        elif str(result := worked_out(found[0])) != answer:
            out.append(f"{where}.answers[{k}]: {answer!r}; {found[0]} is {result}")
    if len({len(a) for a in block.answers}) > 1:
        out.append(f"{where}.answers: expected as many digits in each, found {block.answers}")
    return out


def lint_facts(block: Block, where: str) -> list[str]:
    """Answers of more than one word, or named in their own block's questions."""
    out = [
        f"{where}.answers[{j}]: expected one word, found {a!r}"
        for j, a in enumerate(block.answers)
        if len(a.split()) != 1
    ]
    asked = {w for q in block.questions for w in words(q)}
    return out + [
        f"{where}.answers[{j}]: {a!r} is in a question"
        for j, a in enumerate(block.answers)
        if words(a)[0] in asked
    ]


def worked_out(expression: str) -> int | float:
    """Left to right: enough for chains of one operator."""
    first, *rest = re.split(rf" ({SIGN}) ", expression)
    total: int | float = int(first)
    for sign, number in zip(rest[::2], rest[1::2], strict=True):
        total = OPERATORS[sign](total, int(number))
    return int(total) if total == int(total) else total
