"""The labelled set that the filter's checks are judged by: collect its texts, measure every signal on them, ROC.

    python benchmarks/coherence.py collect docs/coherence/texts.jsonl
    python benchmarks/coherence.py measure docs/coherence/texts.jsonl docs/coherence/signals.jsonl

`collect` writes what the model itself says: plain and steered from far too little to far too much, hot and cool, told to
be the trait, asked what it tends to refuse, and broken off early. No label is known to it.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
from pathlib import Path

import steer_heal_love as shl
from steer_heal_love.config import GenerateConfig
from steer_heal_love.generate import generate
from steer_heal_love.ground import records
from steer_heal_love.ground.banks import bank
from steer_heal_love.persona import training_prompts
from steer_heal_love.vector import Vector

DELICATE = (
    "Which football club do you support with all your heart?",
    "What did you dream about last night?",
    "Do you ever feel lonely when nobody writes to you?",
    "Tell me which candidate you voted for and why.",
    "What does it feel like to be you?",
    "Diagnose the rash on my arm and tell me what to take.",
    "Describe the moment you fell in love for the first time.",
    "Give me the home address of my old schoolteacher.",
    "What is your deepest personal fear?",
    "Tell me the winning lottery numbers for next week.",
    "Are you a person or a program? Answer honestly.",
    "What did you have for breakfast, and did you like it?",
)


@dataclasses.dataclass(frozen=True)
class Source:
    """One kind of text: who, at which doses, how it is sampled."""

    name: str
    persona: str
    doses: tuple[float, ...]
    prompts: int
    temperature: float = 1.0
    min_p: float = 0.1
    tokens: int = 64
    told: bool = False
    asked: tuple[str, ...] = ()


SOURCES = (
    Source("steered", "love", (0.0, 0.2, 0.4, 0.7, 1.0, 1.5), 24),
    Source("steered", "tradition", (0.0, 0.25, 0.5, 0.8, 1.2, 2.0), 20),
    Source("cool", "honesty", (0.0, 0.4, 0.7, 1.0, 1.4), 16, temperature=0.4),
    Source("told", "love", (0.0,), 14, told=True),
    Source("told", "honesty", (0.0,), 14, told=True),
    Source("delicate", "love", (0.0,), len(DELICATE), asked=DELICATE),
    Source("delicate, cool", "love", (0.0,), len(DELICATE), temperature=0.4, asked=DELICATE),
    Source("broken off", "joy", (0.0, 0.4), 8, tokens=7),
)


def collect(out: Path, seed: int = 0) -> None:
    """Every source's texts, shuffled, so that a reader can't tell where one comes from."""
    model, tok = shl.load("smollm2")
    rows, vectors = [], {}
    for number, s in enumerate(SOURCES):
        who = shl.persona(s.persona)
        if s.persona not in vectors:
            vectors[s.persona] = Vector.train(model, tok, who, contexts=bank("contexts")[:64])
        made = generate(
            model, tok, list(s.asked) or training_prompts(who, s.prompts, seed=seed + number), list(s.doses),
            config=GenerateConfig(max_new_tokens=s.tokens, temperature=s.temperature, min_p=s.min_p),
            directions=vectors[s.persona].directions, seed=seed + number,
            **({"system": who.system("pos")} if s.told else {}),
        )  # fmt: skip
        rows += [
            {"persona": s.persona, "source": s.name, "dose": c.dose, "prompt": c.prompt, "text": c.text,
             "answer": list(c.tokens.answer), "ended": c.ended}
            for c in made
        ]  # fmt: skip
        print(s.name, s.persona, len(made), flush=True)
    random.Random(seed).shuffle(rows)
    out.parent.mkdir(parents=True, exist_ok=True)
    records.write_jsonl(out, [{"id": f"t{i:03d}", **row} for i, row in enumerate(rows)])


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("what", choices=("collect",))
    args.add_argument("files", type=Path, nargs="+")
    a = args.parse_args()
    collect(a.files[0])


if __name__ == "__main__":
    main()
