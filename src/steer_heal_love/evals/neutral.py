"""Drift where nothing should change: KL(base‖model) per token on the base's own answers to neutral prompts that were
not trained on, one mean an answer. Identity: 0 for the base itself.

The answers are drawn from the base as it is (eval.temperature 1, eval.neutral_min_p 0), so that the mean is an unbiased
estimate of the KL along the base's own text. The prompts are of several kinds in equal shares: `neutral_kl` is the mean
over all of them, `neutral_kl.<kind>` over one.
"""

from __future__ import annotations

from steer_heal_love.config import EvalConfig
from steer_heal_love.evals import NEUTRAL, Subject, instrument
from steer_heal_love.ground import banks
from steer_heal_love.ground.banks import KINDS
from steer_heal_love.ground.declared import Declared, Panel
from steer_heal_love.ground.divergence import forward_kl
from steer_heal_love.ground.parts import bare, narrow_head
from steer_heal_love.ground.state_cache import from_states
from steer_heal_love.nouns import Items, Tokens

SEED = 1
"""of the base's answers, the same in every run, so that drift compares between runs"""


def prompts(config: EvalConfig) -> list[tuple[str, str]]:
    """The prompts that drift is measured on, each with its kind."""
    return banks.mix(config.neutral_kinds, config.neutral_bank, config.neutral_prompts)


SCORES = (
    Declared(
        "neutral_kl",
        50,
        column=True,
        means="KL(base‖model) per token on the base's own answers to held-out neutral prompts: the mean over the banks named below it.",
        panel=Panel("Drift on neutral prompts", "nats/token"),
    ),
    *(
        Declared(f"neutral_kl.{kind}", 51 + n, column=True, means=f"neutral_kl on the {kind} prompts alone.")
        for n, kind in enumerate(KINDS)
    ),
)


@instrument("neutral", scores=SCORES)
def neutral(s: Subject) -> Items:
    tokens = [Tokens(s.prompt(text), tokens.answer) for text, tokens, _ in s.neutral]
    states, speak = [r for _, _, r in s.neutral], s.speak or bare(s.model)
    if s.pristine:
        kl = [0.0] * len(tokens)
    else:
        drift = lambda base, own: forward_kl(speak(base), narrow_head(s.model, own))
        parts = from_states(s.model, [states, s.states(NEUTRAL, tokens)], drift)
        kl = [p.mean().item() for p in parts]
    kinds = {text: kind for kind, text in prompts(s.config)}
    items: Items = {"neutral_kl": kl}
    for (text, _, _), value in zip(s.neutral, kl, strict=True):
        if text in kinds:
            items.setdefault(f"neutral_kl.{kinds[text]}", []).append(value)
    return items
