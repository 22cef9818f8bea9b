"""Null: plain SFT on the base's own, unsteered text that the filter keeps: as many texts and steps as plain SFT has."""

from __future__ import annotations

from collections.abc import Iterator

from steer_heal_love import control
from steer_heal_love.compare.bench import Bench
from steer_heal_love.compare.method import Cell, method
from steer_heal_love.compare.scaled import KNOB, scaled
from steer_heal_love.ground import folder as files
from steer_heal_love.ground.errors import Starved
from steer_heal_love.nouns import Completion


@method("null_sft_base", knob=KNOB, kind="healed", null=True)
def null_sft_base(bench: Bench) -> Iterator[Cell]:
    yield from scaled(bench, bench.imitated("adapter", lambda: text(bench)))


def text(bench: Bench) -> list[Completion]:
    """For each completion that the healed round trains on, another answer to its prompt, by nobody steered."""
    file = bench.folder.path / "text.jsonl"
    make = lambda: control.unsteered(bench.run, bench.kept())
    found = bench.folder.once("generate", file, files.load_completions, files.save_completions, make)
    if not found:
        raise Starved("the filter keeps none of the base's own answers.")
    return found
