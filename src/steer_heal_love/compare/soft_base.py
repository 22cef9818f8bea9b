"""Soft targets on the base's own text: no steered text, no filter, no walk of the dose.

    min Σ_t KL(teacher ‖ student) + anchor,   teacher = the base, moved along what the vector does and its opposite undoes

(`heal.teacher`) over as many of the base's own answers to training prompts as the healed round keeps, at the dose that the
walk would start from. What the healed round has beyond this, the steered text and the filter give it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from steer_heal_love import loop
from steer_heal_love.compare.bench import Bench
from steer_heal_love.compare.healed_round import unscaled
from steer_heal_love.compare.method import Cell, method
from steer_heal_love.compare.scaled import KNOB
from steer_heal_love.generate import generate
from steer_heal_love.ground import folder as files
from steer_heal_love.ground import purposes
from steer_heal_love.nouns import Completion
from steer_heal_love.persona import training_prompts
from steer_heal_love.session import Run


@method("soft_base", knob=KNOB, kind="healed")
def soft_base(bench: Bench) -> Iterator[Cell]:
    r = soft(bench)
    healed = loop.healed(r, 0, own_text(r, 0), bench.vector(), dose=r.config.walk.start)
    yield from unscaled(bench, *healed)


def soft(bench: Bench) -> Run:
    """The seed's run in the method's own folder, learning from soft targets alone."""
    cfg = bench.run.config
    cfg = replace(cfg, heal=replace(cfg.heal, soft=1.0))
    return replace(bench.fresh(), folder=bench.folder, config=cfg)


def own_text(r: Run, number: int) -> list[Completion]:
    """The pristine base's own answers, as many as a round keeps, other prompts and draws each round."""
    cfg, seed = r.config, r.seed(purposes.OWN_TEXT, number)

    def make() -> list[Completion]:
        prompts = training_prompts(r.persona, cfg.filter.keep, seed=seed)
        return generate(
            r.model,
            r.tok,
            prompts,
            [0.0],
            config=cfg.generate,
            seed=seed,
            track=r.track,
            label="generate unsteered",
        )

    file = r.folder.round(number) / "text.jsonl"
    return r.folder.once("generate", file, files.load_completions, files.save_completions, make)
