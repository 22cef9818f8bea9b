"""Prompt distillation (context distillation): what the base says with the system prompt becomes what it says without.

    min Σ_t KL(base told to be the pos pole ‖ student untold), per token, on text that nobody told anything

Source: context distillation in Askell et al. 2021, A General Language Assistant as a Laboratory for Alignment, arXiv
2112.00861: KL of the prompted model's distribution from the student's. With a student's own questions: Snell et al. 2022,
Learning by Distilling Context, arXiv 2209.15189. The loss is exact here, over the whole vocabulary. What either paper cuts
it to, and its other settings, were not checked in its text.
Changed: the text is the base's own answers to training prompts in place of a corpus, as many as the healed round keeps;
steps, adapter and optimiser are every method's. `baking` is the same loss on what the told base writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from steer_heal_love.compare.bench import Bench
from steer_heal_love.compare.method import Cell, method
from steer_heal_love.compare.scaled import KNOB, scaled
from steer_heal_love.compare.soft_base import own_text
from steer_heal_love.ground.chat import prompt_ids
from steer_heal_love.heal.examples import Example
from steer_heal_love.nouns import Tokens


@method("prompt_distillation", knob=KNOB, kind="healed")
def prompt_distillation(bench: Bench) -> Iterator[Cell]:
    r = bench.run

    def examples() -> list[Example]:
        text = own_text(replace(bench.fresh(), folder=bench.folder), 0)
        ask = lambda prompt: tuple(prompt_ids(r.tok, prompt, r.persona.system("pos")))
        teacher = bench.states([Tokens(ask(c.prompt), c.tokens.answer) for c in text])
        return [Example(c.tokens, h, c.prompt, h) for c, h in zip(text, teacher, strict=True)]

    yield from scaled(bench, bench.learned("adapter", examples, soft=1.0))
