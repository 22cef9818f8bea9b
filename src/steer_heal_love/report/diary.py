"""The diary: the same held-out prompts down the rounds, answered by the base, by the base with the persona's system prompt,
and by each round's steered model and its healed one.
"""

from __future__ import annotations

from dataclasses import dataclass

from steer_heal_love.nouns import Stage
from steer_heal_love.report.read import RunRecord


@dataclass(frozen=True)
class Entry:
    """One prompt: its answers before the loop, then (round, steered, healed); None where none was taken."""

    prompt: str
    kind: str
    base: str | None
    prompted: str | None
    rounds: list[tuple[int, str | None, str | None]]


def diary(run: RunRecord) -> list[Entry]:
    """An entry for each of the base model's sample prompts, in their order."""
    base = run.stage("base")
    probes = {p.get("question") for p in run.persona.get("probes", [])}
    answers: dict[tuple[str, int], dict[str, str]] = {(s.stage, s.round): by_prompt(s) for s in run.stages}
    numbers = sorted({s.round for s in run.stages if s.round >= 0})

    def answer(stage: str, round: int, prompt: str) -> str | None:
        return answers.get((stage, round), {}).get(prompt)

    return [
        Entry(
            prompt,
            "probe" if prompt in probes else "neutral",
            answer("base", -1, prompt),
            answer("prompt", -1, prompt),
            [(n, answer("steered", n, prompt), answer("healed", n, prompt)) for n in numbers],
        )
        for prompt in (by_prompt(base) if base else {})
    ]


def by_prompt(stage: Stage) -> dict[str, str]:
    return {s["prompt"]: s["text"] for s in stage.samples}
