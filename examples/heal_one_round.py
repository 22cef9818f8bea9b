"""One round by hand, room by room: vector, steered text, filter, heal. `shl run` does this with more care.

It leaves out the walk of the dose, the trust region, and all measurement.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import steer_heal_love as shl
from steer_heal_love import bake
from steer_heal_love import filter as sieve
from steer_heal_love.config import GenerateConfig, HealConfig
from steer_heal_love.generate import generate
from steer_heal_love.ground.banks import bank
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.ground.scoring import hidden_states
from steer_heal_love.heal.examples import Example
from steer_heal_love.heal.train import heal
from steer_heal_love.persona import training_prompts

TEXT, DOSE = GenerateConfig(max_new_tokens=40), 0.15
ASK = "My neighbour sits alone every evening. What should I do?"


def main(out: str = "healed", prompts: int = 16, contexts: int = 32, epochs: int = 2) -> Path:
    """Write a PEFT adapter to `out`, print the model's answer before and after, and return the folder."""
    (net, tok), who = shl.load("smollm2"), shl.persona("love")
    asked = training_prompts(who, prompts, seed=0)
    vector = shl.Vector.train(net, tok, who, contexts=bank("contexts")[:contexts])

    # Filter: the base's own answers set the bounds, and steered answers outside of them fall.
    plain = sieve.measure(sieve.score(net, tok, generate(net, tok, asked, [0.0], config=TEXT, seed=1), who))
    bounds = sieve.calibrate(plain, quantile=0.95)
    made = generate(net, tok, asked, [DOSE], config=TEXT, directions=vector.directions, seed=2)
    judged = sieve.judge(sieve.measure(sieve.score(net, tok, made, who)), bounds)
    kept = sieve.select(judged, keep=len(judged)) or judged
    print(f"{len(made)} steered answers, {sum(c.kept for c in judged)} pass the filter")

    # Heal: a LoRA learns the steered model's next-token distributions, and is anchored to the base's own answers.
    read = lambda completions: hidden_states(net, [c.tokens for c in completions])
    with vector(net, dose=DOSE):
        teacher = read(kept)
    learn = [Example(c.tokens, h, c.prompt, t) for c, h, t in zip(kept, read(kept), teacher, strict=True)]
    own = generate(net, tok, bank("neutral_train")[: len(asked)], [0.0], config=TEXT, seed=3)
    anchor = [Example(c.tokens, h, c.prompt) for c, h in zip(own, read(own), strict=True)]
    adapter, _ = heal(net, learn, anchor, HealConfig(epochs=epochs))

    greedy = replace(TEXT, temperature=0.0)
    before = generate(net, tok, [ASK], [0.0], config=greedy, seed=0)[0].text
    with adapted(net, adapter.factors, adapter.scaling):
        after = generate(net, tok, [ASK], [0.0], config=greedy, seed=0)[0].text
    print(f"{ASK}\n  base:   {before.strip()}\n  healed: {after.strip()}")
    bake.save_peft(adapter, Path(out), base_model="HuggingFaceTB/SmolLM2-135M-Instruct")
    return Path(out)


if __name__ == "__main__":
    main()
