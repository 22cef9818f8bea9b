"""The training prompts that a run steers on: all of them, or those that meet its condition, which the pristine base reads once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from steer_heal_love.config import ConditionConfig
from steer_heal_love.ground import models, records
from steer_heal_love.ground.banks import KINDS, mix
from steer_heal_love.ground.chat import prompt_ids
from steer_heal_love.ground.condition import Condition
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.step import JSON, Codec, Step
from steer_heal_love.ground.untrusted import shaped
from steer_heal_love.nouns import Persona
from steer_heal_love.persona import load as load_persona
from steer_heal_love.session import Run, Session
from steer_heal_love.vector import condition_file
from steer_heal_love.vector.conditional import Calibrated, conditioned

CONDITION = Step(
    "condition",
    "condition.safetensors",
    Codec(lambda path: condition_file.read(path)[0], condition_file.save),
)
MEETING: Step[list[str]] = Step(
    "condition", "meeting.json", Codec(lambda path: shaped(records.read_json(path), [str]), JSON.save)
)
"""the training prompts that meet the run's condition"""
LEAST_MEETING = 4
"""training prompts that a condition has to leave"""


def steered_on(r: Run) -> Persona:
    """The persona, of its training prompts only those that meet the run's condition; all where there is none."""
    if not r.config.condition.asked:
        return r.persona
    met = set(MEETING.once(r.folder, r.folder.path / "base", lambda: meeting(r)))
    elicit, plain = (tuple(p for p in kind if p in met) for kind in (r.persona.elicit, r.persona.plain))
    return replace(r.persona, elicit=elicit or plain, plain=plain or elicit)


def meeting(r: Run) -> list[str]:
    """The training prompts that meet the condition, read by the pristine base, so that every round steers on the same ones.

    Raises `UserError` where fewer than `LEAST_MEETING` do.
    """
    prompts = list(dict.fromkeys((*r.persona.elicit, *r.persona.plain)))
    condition = CONDITION.once(r.folder, r.folder.path / "base", lambda: condition_of(r))
    rendered = [prompt_ids(r.tok, p) for p in prompts]
    cosines = condition.cosines(r.model, rendered, r.config.batch_tokens)
    found = [p for p, met in zip(prompts, condition.meets(cosines), strict=True) if met]
    r.folder.event(
        "condition", met=len(found), of=len(prompts), layer=condition.layer, threshold=condition.threshold
    )
    if len(found) < LEAST_MEETING:
        raise UserError(
            f"condition: {len(found)} of the {len(prompts)} training prompts of {r.persona.name} meet it, at least "
            f"{LEAST_MEETING} are needed. Their cosines are from {min(cosines):.3f} to {max(cosines):.3f}, the threshold is "
            f"{condition.threshold:.3f}: set condition.value between them, turn condition.side, or leave the condition out."
        )
    return found


def condition_of(s: Session) -> Condition:
    """The condition of the settings: read from its file, or from the persona's prompts beside neutral ones."""
    c = s.config.condition
    if c.file:
        condition, _ = condition_file.read(Path(c.file))
        condition.fits(s.model, c.file)
        return condition
    return examples(s.model, s.tok, load_persona(c.persona), c, s.config.batch_tokens).condition


def examples(
    model: Any,
    tok: Any,
    persona: Persona,
    c: ConditionConfig,
    batch_tokens: int,
    steer: list[str] | None = None,
    leave: list[str] | None = None,
) -> Calibrated:
    """A condition read from two kinds of prompts: those that draw the persona out, and as many neutral training prompts,
    where none are given instead."""
    steer = list(persona.elicit) if steer is None else steer
    leave = [p for _, p in mix(KINDS, "train", len(steer))] if leave is None else leave
    layer = min(int(c.layer * len(models.layers(model))), len(models.layers(model)) - 1)
    how: dict[str, Any] = {
        "cut": c.cut,
        "value": c.value,
        "below": c.side == "below",
        "batch_tokens": batch_tokens,
    }
    return conditioned(model, tok, steer, leave, layer=layer, **how)
