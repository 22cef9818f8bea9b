"""Prompt baking: distil the prompted model into an adapter that needs no prompt.

    min KL(base told to be the pos pole ‖ student untold), per token, on the told base's own samples

over the whole vocabulary. Source: Bhargava et al. 2024, Prompt Baking, arXiv 2409.13697. Code of an author
(prompt_weight_equivalence, train_loop.py) has the same loss, with LoRA of rank 32 and alpha 1 on the attention's matrices and
Adam at 1e-4, on samples at temperature 2, 25 a question. That those are the paper's own settings was not checked.
Changed: samples at the run's temperature, one a training prompt and as many as the healed round keeps; steps, adapter and
optimiser are every method's. The paper stops early for a weaker prompt; here the finished update is scaled instead.
"""

from __future__ import annotations

from collections.abc import Iterator

from steer_heal_love.compare.bench import Bench, unprompted
from steer_heal_love.compare.method import Cell, method
from steer_heal_love.compare.scaled import KNOB, scaled
from steer_heal_love.heal.examples import Example


@method("baking", knob=KNOB, kind="healed")
def baking(bench: Bench) -> Iterator[Cell]:
    def examples() -> list[Example]:
        told = bench.prompted("pos")
        teacher = bench.states([c.tokens for c in told])
        lessons = zip(unprompted(bench.run.tok, told), teacher, strict=True)
        return [Example(c.tokens, h, c.prompt, h) for c, h in lessons]

    yield from scaled(bench, bench.learned("adapter", examples, soft=1.0))
