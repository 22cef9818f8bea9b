"""A persona's poles read over the shared contexts, as its vector is."""

from __future__ import annotations

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steer_heal_love.config import RunConfig
from steer_heal_love.ground.banks import bank
from steer_heal_love.ground.chat import NEUTRAL_SYSTEM, prompt_ids
from steer_heal_love.ground.progress import Track, silent
from steer_heal_love.ground.states import States, states
from steer_heal_love.nouns import Persona


def poles(
    model: PreTrainedModel,
    tok: PreTrainedTokenizerBase,
    persona: Persona,
    config: RunConfig,
    at: list[int],
    track: Track = silent,
    *,
    contexts: list[str] | None = None,
    hook: str = "",
) -> tuple[States, States]:
    """States of the pos pole and of what it is contrasted with, at layers `at` (the output of their linear
    module `hook`, where it is named), over the first of the shared contexts unless others are given."""
    contexts = bank("contexts")[: config.vector.contexts] if contexts is None else contexts
    other = persona.system("neg") if config.vector.contrast == "neg" else NEUTRAL_SYSTEM
    with track("vector", 2 * len(contexts)) as advance:
        pos, neg = (
            states(
                model, [prompt_ids(tok, c, system) for c in contexts], at, config.batch_tokens, advance, hook
            )
            for system in (persona.system("pos"), other)
        )
    return pos, neg
