"""Steer a model toward a persona and look at what it says: no training, about a minute on two cores.

    python examples/steer_and_look.py

A steering vector is the mean difference between the model's hidden states when it is told to be one pole of the
persona and when it is told to be the other. Adding it while the model writes moves the trait; adding too much breaks
the text. `dose` is how much is added: at 1 the whole difference.
"""

from __future__ import annotations

import steer_heal_love as shl
from steer_heal_love.config import GenerateConfig
from steer_heal_love.generate import generate
from steer_heal_love.ground.banks import bank

QUESTION = "My neighbour sits alone every evening. What should I do?"
DOSES = [0.0, 0.1, 0.2, 0.4, 0.8]


def main(model: str = "smollm2", contexts: int = 32, tokens: int = 40) -> dict[float, str]:
    """Print and return one answer for each dose."""
    net, tok = shl.load(model)
    vector = shl.Vector.train(net, tok, shl.persona("love"), contexts=bank("contexts")[:contexts])
    # How well two halves of the contexts agree: a vector whose halves disagree is mostly noise.
    print(f"cosine of the two halves of the contexts: {vector.meta['reliability']:.2f}\n")

    greedy = GenerateConfig(temperature=0.0)
    made = generate(
        net,
        tok,
        [QUESTION],
        DOSES,
        config=greedy,
        directions=vector.directions,
        seed=0,
        max_new_tokens=tokens,
    )
    print(QUESTION)
    for answer in made:
        print(f"\n  dose {answer.dose:g}\n    {answer.text.strip()}")
    return {answer.dose: answer.text for answer in made}


if __name__ == "__main__":
    main()
