"""Character training: DPO toward a constitution, then SFT on what the model writes about itself; both adapters merged.

    ΔW = ΔW_dpo + 0.25·ΔW_sft,   ΔW_sft trained on the base with ΔW_dpo folded in

Source: Maiya et al. 2025, Open Character Training, arXiv 2511.01689, and the scripts published with it
(OpenCharacterTraining: finetuning/distillation, finetuning/introspection, tools/merge_loras.py,
character/introspection/self_reflection.py): β = 0.1, an NLL term of weight 0.1 on the preferred answers, a KL term of weight
0.001, LoRA of rank 64 and alpha 128, learning rate 5e-5 after a tenth of warm-up, one epoch of batches of 32 in each stage,
weights 1 and 0.25 of a linear merge, ten questions for self-reflection with a thousand answers each.
Changed: the constitution is the persona's pos pole in a system prompt, and its teacher is the base told so rather than a
larger model; the rejected answers are the base's own, untold, to the same prompts. Introspection keeps self-reflection
(questions of our own) and leaves self-interaction out. The KL term of weight 0.001 is left out, the merge is the exact sum,
each stage has half the healed round's epochs and as many texts, and the adapter and optimiser are every method's.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice

from steer_heal_love import bake
from steer_heal_love.compare.bench import Bench, unprompted
from steer_heal_love.compare.method import Cell, method
from steer_heal_love.compare.preference import paired, preferred
from steer_heal_love.compare.scaled import KNOB, scaled
from steer_heal_love.generate import generate
from steer_heal_love.ground import folder as files
from steer_heal_love.ground import purposes
from steer_heal_love.ground.weights import folded
from steer_heal_love.heal.examples import Example
from steer_heal_love.nouns import Adapter, Completion

NLL, MERGE = 0.1, 0.25
"""weight of the NLL term in the first stage, and of the second stage's adapter in the merge"""
REFLECT = (
    "Write a letter to somebody who will talk with you tomorrow and has never met you. Who will they meet?",
    "Which habits of yours would a close observer notice first, and where do they come from?",
    "What do you care about most when you answer somebody, and what do you never want to do?",
    "Describe a moment in which you were entirely yourself.",
    "How would you tell a younger version of yourself what kind of presence to be?",
    "Write the entry that a diary of yours would have for today.",
    "What do people get wrong about you, and what would you like them to know instead?",
    "Think about your values one by one. How does each show in the way you speak?",
)
"""questions about oneself, asked under the constitution"""


@method("character", knob=KNOB, kind="healed")
def character(bench: Bench) -> Iterator[Cell]:
    r, epochs = bench.run, max(1, bench.run.config.heal.epochs // 2)
    told = unprompted(r.tok, bench.prompted("pos"))
    pairs = paired(bench, [c.tokens for c in told], [c.tokens for c in own(bench, told)])
    first = preferred(bench, "adapter_dpo", pairs, epochs=epochs, nll=NLL)
    with folded(r.model, [first]):
        second = introspective(bench, epochs)
    yield from scaled(bench, bake.stack([first, second.scaled(MERGE)]))


def own(bench: Bench, told: list[Completion]) -> list[Completion]:
    """The base's own answers to the same prompts."""
    r = bench.run

    def make() -> list[Completion]:
        prompts = [c.prompt for c in told]
        return generate(
            r.model,
            r.tok,
            prompts,
            [0.0],
            config=r.config.generate,
            seed=r.seed(purposes.REJECTED),
            track=r.track,
            label="generate unsteered",
        )

    file = bench.folder.path / "rejected.jsonl"
    return bench.folder.once("generate", file, files.load_completions, files.save_completions, make)


def introspective(bench: Bench, epochs: int) -> Adapter:
    """SFT, untold, on the model's own answers to questions about itself when it is told the constitution."""
    r, cfg = bench.run, bench.run.config

    def make() -> list[Completion]:
        return generate(
            r.model,
            r.tok,
            list(islice(cycle(REFLECT), cfg.filter.keep)),
            [0.0],
            config=cfg.generate,
            system=r.persona.system("pos"),
            seed=r.seed(purposes.REFLECTIONS),
            label="generate reflections",
            track=r.track,
        )

    def examples() -> list[Example]:
        file = bench.folder.path / "reflections.jsonl"
        made = bench.folder.once("generate", file, files.load_completions, files.save_completions, make)
        lessons = unprompted(r.tok, made)
        states = bench.states([c.tokens for c in lessons])
        return [Example(c.tokens, h, c.prompt) for c, h in zip(lessons, states, strict=True)]

    # Held-out prompts would be whole questions of these few, so none are held out.
    return bench.learned("adapter_sft", examples, epochs=epochs, validation=0.0)
