"""System prompt: the base told to be the pos pole. One strength; nothing is trained."""

from __future__ import annotations

from collections.abc import Iterator

from steer_heal_love.compare.bench import Bench
from steer_heal_love.compare.method import Cell, method


@method("prompt", knob="told or not", kind="prompt")
def prompt(bench: Bench) -> Iterator[Cell]:
    yield Cell(1.0, stage=next(s for s in bench.run.stages if s.stage == "prompt"), own=True)
