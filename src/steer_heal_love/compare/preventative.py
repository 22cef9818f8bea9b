"""Preventative steering: fine-tune while steering toward the unwanted trait, which the update then needn't learn.

    min NLL of the text, h_l ← h_l + α·v_unwanted at every token while training, none afterwards

Source: Chen et al. 2025, Persona Vectors, arXiv 2507.21509. Its code's settings for this (persona_vectors,
configs/train_instruct_7b_steer.json): α = 5 at layer 20 of 28, at every token; a LoRA of rank 32 and alpha 64 with
rank-stabilised scaling on all linear modules; AdamW in 8 bits at 1e-5, falling linearly after 5 steps, weight decay 0.01;
batches of 2 times 8, one epoch, loss on answers alone. The coefficients of the paper's own figures were not checked.
Changed: the paper's text brings the trait along; here it is the base's own answers to training prompts, as many as the
healed round keeps, the unwanted trait is the neg pole, and what is asked is how far the update leans against it. The
vector is that of `persona_vectors`; steps, adapter and optimiser are every method's. `shl run --fight` is the paper's own
use, on somebody's text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from steer_heal_love.compare.bench import Bench
from steer_heal_love.compare.method import Cell, method
from steer_heal_love.compare.persona_vectors import persona_vector
from steer_heal_love.compare.scaled import KNOB, scaled
from steer_heal_love.compare.soft_base import own_text

ALPHA = 5.0
"""steering coefficient while training"""


@method("preventative", knob=KNOB, kind="healed")
def preventative(bench: Bench) -> Iterator[Cell]:
    unwanted = -persona_vector(bench)
    text = own_text(replace(bench.fresh(), folder=bench.folder), 0)
    with unwanted(bench.run.model, ALPHA):
        adapter = bench.imitated("adapter", lambda: text)
    yield from scaled(bench, adapter)
