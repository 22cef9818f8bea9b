"""Weight steering: the difference of two adapters trained toward the poles,

    ΔW = strength · (ΔW_pos − ΔW_neg),

each by plain SFT, untold, on what the base writes when a system prompt tells it to be that pole: the same
training prompts, draws, steps and starting factors for both.

Source: Fierro & Roger 2025, Steering Language Models with Weight Arithmetic, arXiv 2511.05408, section 3: LoRA of rank 32 and
alpha 16 on all modules, Adam with weight decay 0.01 falling linearly after 5 steps, about an epoch, the learning rate chosen
by validation loss; 20 questions, 5 system prompts a pole and 10 answers each, kept where a judge sees the behaviour. The
strength is a free scalar without a default.
Changed: one system prompt a pole, no judge; adapter, learning rate and steps are every method's; strength 1 is marked as
its own default. The configurations of the paper's code also train embeddings and head; here they stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from steer_heal_love import bake
from steer_heal_love.compare.bench import Bench, unprompted
from steer_heal_love.compare.method import Cell, method
from steer_heal_love.compare.scaled import KNOB, scaled
from steer_heal_love.nouns import Adapter


@method("weight_steering", knob=KNOB, kind="healed")
def weight_steering(bench: Bench) -> Iterator[Cell]:
    def toward(pole: Literal["pos", "neg"]) -> Adapter:
        return bench.imitated(pole, lambda: unprompted(bench.run.tok, bench.prompted(pole)))

    yield from scaled(bench, bake.stack([toward("pos"), toward("neg").scaled(-1.0)]))
