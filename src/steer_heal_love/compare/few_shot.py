"""Few-shot prompt: the most on-trait steered completions that were kept, as earlier turns of the conversation.

The system prompt stays neutral; questions are training prompts, never held-out probes. Answers that ended by
themselves come first, each question once.
"""

from __future__ import annotations

from collections.abc import Iterator

from steer_heal_love.compare.bench import Bench
from steer_heal_love.compare.method import Cell, method
from steer_heal_love.nouns import Completion


@method("few_shot", knob="examples before the question", kind="prompt")
def few_shot(bench: Bench) -> Iterator[Cell]:
    examples = best(bench.kept())
    for n in map(int, bench.grid.shots):
        if n <= len(examples):
            yield Cell(float(n), given={"shots": tuple((c.prompt, c.text) for c in examples[:n])})


def best(kept: list[Completion]) -> list[Completion]:
    """One completion a prompt, those that ended first, then the most on-trait."""
    ranked = sorted(kept, key=lambda c: (not c.ended, -c.checks.get("on_trait", 0.0)))
    first: dict[str, Completion] = {}
    for c in ranked:
        first.setdefault(c.prompt, c)
    return list(first.values())
