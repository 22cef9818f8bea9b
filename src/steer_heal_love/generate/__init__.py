"""Completions: every prompt at every dose, under the neutral system prompt unless another is given, so that
only the vector differs.

In: prompts, doses, directions. Out: a `Completion` for each pair, tokens kept as sampled. Dose 0 is plain. What writes
them is an engine (`generate.engine`).
"""

from __future__ import annotations

from collections.abc import Mapping

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steer_heal_love.config import GenerateConfig
from steer_heal_love.generate.engine import Order, engines, write
from steer_heal_love.ground.chat import NEUTRAL_SYSTEM, end_of_turn_ids, prompt_ids
from steer_heal_love.ground.condition import Condition
from steer_heal_love.ground.operations import Steering
from steer_heal_love.ground.places import Rows
from steer_heal_love.ground.policy import Policy
from steer_heal_love.ground.progress import Track, silent
from steer_heal_love.nouns import Completion, Tokens

__all__ = ["engines", "generate"]


def generate(
    model: PreTrainedModel,
    tok: PreTrainedTokenizerBase,
    prompts: list[str],
    doses: list[float],
    *,
    config: GenerateConfig,
    directions: Mapping[int, Rows] | None = None,
    operation: str = "add",
    adapt: Policy | None = None,
    when: Condition | None = None,
    seed: int,
    max_new_tokens: int | None = None,
    system: str = NEUTRAL_SYSTEM,
    label: str = "generate",
    track: Track = silent,
) -> list[Completion]:
    """len(prompts)·len(doses) completions, prompts outermost. Without directions, doses must be [0].
    `operation`: what the directions do to the hidden state. `adapt`: how the dose changes while an answer is written.
    `when`: steer only the answers to prompts that meet this condition; a completion keeps the dose that was asked for."""
    if directions is None and doses != [0.0]:
        raise ValueError(f"doses {doses} without directions")
    pairs = [(p, d) for p in prompts for d in doses]
    rendered = [prompt_ids(tok, p, system) for p, _ in pairs]
    ends = end_of_turn_ids(model, tok)
    order = Order(
        rendered,
        ends,
        config,
        max_new_tokens or config.max_new_tokens,
        seed,
        steerings=() if directions is None else (Steering(directions, operation),),
        which=[0] * len(pairs),
        doses=[d for _, d in pairs],
        adapt=adapt,
        when=when,
        track=track,
        label=label,
    )
    answers = write(model, tok, order)
    return [
        Completion(p, Tokens(ids, a), str(tok.decode(a, skip_special_tokens=True)), d, a[-1] in ends)
        for (p, d), ids, a in zip(pairs, rendered, answers, strict=True)
    ]
