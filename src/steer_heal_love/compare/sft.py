"""Plain SFT on steered text: NLL of the completions that round 0 kept; no anchor, barrier or trust region.

The same text, steps and starting factors as the healed round. The difference between the two is all that the heal adds at
once: soft targets, anchor and trust region; it doesn't say which of them. Three rounds against it count rounds as well.
"""

from __future__ import annotations

from collections.abc import Iterator

from steer_heal_love.compare.bench import Bench
from steer_heal_love.compare.method import Cell, method
from steer_heal_love.compare.scaled import KNOB, scaled


@method("sft", knob=KNOB, kind="healed")
def sft(bench: Bench) -> Iterator[Cell]:
    yield from scaled(bench, bench.imitated("adapter", bench.kept))
