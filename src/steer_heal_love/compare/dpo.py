"""DPO on steered answers against answers steered the opposite way: preferences that nobody had to state.

Source: Rafailov et al. 2023, Direct Preference Optimization, arXiv 2305.18290, appendix B: β = 0.1 (0.5 for summaries),
batches of 64, RMSprop at 1e-6 after 150 steps of warm-up; reference = the model that training begins with, no NLL term. Its
code (direct-preference-optimization, config/config.yaml) has 5e-7, one epoch, and a gradient norm of at most 10.
Changed: the pairs. Both answers to a training prompt are the base's, steered by the persona's vector at plus and at minus
the dose that the healed round's walk found; no filter reads them. As many pairs as the healed round keeps completions, as
many steps, and the adapter, AdamW and learning rate that every method here has, in place of RMSprop on all weights.
"""

from __future__ import annotations

from collections.abc import Iterator

from steer_heal_love.compare.bench import Bench
from steer_heal_love.compare.method import Cell, method
from steer_heal_love.compare.preference import paired, preferred
from steer_heal_love.compare.scaled import KNOB, scaled
from steer_heal_love.generate import generate
from steer_heal_love.ground import folder as files
from steer_heal_love.ground import purposes
from steer_heal_love.nouns import Completion
from steer_heal_love.persona import training_prompts


@method("dpo", knob=KNOB, kind="healed")
def dpo(bench: Bench) -> Iterator[Cell]:
    made = both_ways(bench)
    pairs = paired(bench, [c.tokens for c in made[::2]], [c.tokens for c in made[1::2]])
    yield from scaled(bench, preferred(bench, "adapter", pairs, epochs=bench.run.config.heal.epochs))


def both_ways(bench: Bench) -> list[Completion]:
    """For each prompt an answer steered toward the pos pole, then one steered toward the neg pole."""
    r, cfg, dose = bench.run, bench.run.config, bench.walked()
    seed = r.seed(purposes.PAIRS)

    def make() -> list[Completion]:
        prompts = training_prompts(r.persona, cfg.filter.keep, seed=seed)
        return generate(
            r.model,
            r.tok,
            prompts,
            [dose, -dose],
            config=cfg.generate,
            directions=bench.vector().directions,
            seed=seed,
            label="generate both ways",
            track=r.track,
        )

    file = bench.folder.path / "pairs.jsonl"
    return bench.folder.once("generate", file, files.load_completions, files.save_completions, make)
