"""Whether the steering hook acts on every decoded token, not on the prompt alone: states of cached decoding, step by
step, are those of one steered pass, and none is that of an unsteered one."""

from __future__ import annotations

import torch

from steer_heal_love.doctor import Finding, Patient, check
from steer_heal_love.doctor.cache import MORE, behind_nats, steady, step_by_step
from steer_heal_love.ground.decode import sample
from steer_heal_love.ground.hooks import added
from steer_heal_love.nouns import Tokens


@check("steering", 8)
def steering(p: Patient) -> Finding:
    i = steady(p)[0]
    s = p.sequences[i]
    with added(p.model, p.directions, 1.0):
        whole, steps = p.alone(s), step_by_step(p, s)
    size = whole.float().norm(dim=1)
    apart = ((steps - whole).float().norm(dim=1) / size).max().item()
    moved = ((steps - p.reference[i]).float().norm(dim=1) / size).min().item()
    (answer,) = sample(
        p.model,
        [s.prompt],
        ends=p.ends,
        max_new_tokens=MORE,
        seed=0,
        temperature=0,
        steer=p.directions,
        doses=[1.0],
    )
    with added(p.model, p.directions, 1.0):
        behind = behind_nats(p, Tokens(s.prompt, answer))
    seen = f"each of {len(s.answer)} decoded states moved by {moved:.2g} or more, {apart:.1g} from a steered pass"
    near = 1e-3 if p.model.dtype == torch.float32 else 5e-2
    fine = moved > max(1e-3, 3 * apart) and apart <= near and behind <= p.noise_nats
    return Finding(
        "steering",
        seen,
        "well" if fine else "fails",
        "" if fine else "the hook does not act on every decoded token: this architecture is not supported",
    )
