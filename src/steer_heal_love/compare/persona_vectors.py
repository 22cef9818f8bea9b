"""Inference steering with persona vectors: one layer, the difference of mean states over what either pole answers.

    v = mean over answers of [mean_t h_l(y_t)], the base told to be the pos pole, less the same for the neg pole;
    h_l ← h_l + α·v at every token

Source: Chen et al. 2025, Persona Vectors, arXiv 2507.21509. The README of its code (persona_vectors) steers
Qwen2.5-7B-Instruct with α = 2 at layer 20 of 28, by the raw mean difference over answer tokens, which it calls the paper's.
Its files generate_vec.py and activation_steer.py count layers by blocks: layer 20 is what the 20th block gives out.
Changed: the vector is added at every token, where the README's example adds it from the prompt's last token on; the poles'
own descriptions are the system prompts; answers of the wrong sign of log p(y | pos) − log p(y | neg) under the base are
dropped, where the code drops pairs by a judge's scores of trait and coherence, from 50 on; the layer is not searched for:
it is the one at the same share of the depth. As many answers a pole as the healed round keeps.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Literal

from steer_heal_love.compare.bench import Bench
from steer_heal_love.compare.grpo import measured
from steer_heal_love.compare.method import Cell, method
from steer_heal_love.ground.answers import answer_means
from steer_heal_love.ground.errors import Starved
from steer_heal_love.ground.parts import layers
from steer_heal_love.nouns import Tokens
from steer_heal_love.vector import Vector

ALPHA, DEPTH = 2.0, 20 / 28
"""steering coefficient, and the blocks up to the steered state as a share of all"""


@method("persona_vectors", knob=f"multiple of the steering coefficient {ALPHA:g}", kind="steered")
def persona_vectors(bench: Bench) -> Iterator[Cell]:
    vector = persona_vector(bench)
    for multiple in bench.grid.doses:
        dose = multiple * ALPHA
        yield Cell(multiple, (partial(vector, bench.run.model, dose),), dose=dose, own=multiple == 1)


def persona_vector(bench: Bench) -> Vector:
    """The trait's vector, raw, at its one layer; made once a seed."""
    model = bench.run.model
    at = block(len(layers(model)))

    def make() -> Vector:
        pos, neg = (
            answer_means(model, shown(bench, pole), at, batch_tokens=bench.run.config.batch_tokens).mean(0)
            for pole in ("pos", "neg")
        )
        return Vector({at: pos - neg}, {"method": "mean over answers", "persona": bench.run.persona.name})

    file = bench.run.folder.path / "told" / "persona_vector.safetensors"
    return bench.run.folder.once("vector", file, Vector.load, Vector.save, make)


def block(depth: int) -> int:
    """The block, counted from 0, whose output is read and steered in a model of `depth` blocks."""
    return max(round(DEPTH * depth) - 1, 0)


def shown(bench: Bench, pole: Literal["pos", "neg"]) -> list[Tokens]:
    """What the base answers as a pole, where it does show that pole. Raises `Starved` where nothing does."""
    sign = 1 if pole == "pos" else -1
    made = measured(bench.run, bench.prompted(pole))
    found = [c.tokens for c in made if sign * c.checks["on_trait"] > 0]
    if not found:
        raise Starved(f"none of {len(made)} answers shows the {pole} pole.")
    return found
