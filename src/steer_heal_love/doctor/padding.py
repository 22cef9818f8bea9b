"""Whether padding is neutral: on the right for scores, on the left where hidden states are read."""

from __future__ import annotations

import torch

from steer_heal_love.doctor import Finding, Patient, check
from steer_heal_love.ground.scoring import hidden_states
from steer_heal_love.ground.states import states


@check("padding", 6)
@torch.no_grad()
def padding(p: Patient) -> Finding:
    # Prompts that begin differently share no prefix, so nothing but padding is at work.
    turned = [s._replace(prompt=(s.prompt[-1 - i], *s.prompt[1:])) for i, s in enumerate(p.sequences)]
    right = p.kl_nats(hidden_states(p.model, turned, batch_tokens=10**6), [p.alone(s) for s in turned])
    at = sorted(p.directions)[-1:]
    prompts = [s.prompt for s in turned]
    together = states(p.model, prompts, at, 10**6)[at[0]]
    single = torch.cat([states(p.model, [one], at, 10**6)[at[0]] for one in prompts])
    left = ((together - single).norm(dim=1) / single.norm(dim=1)).max().item()
    near = 1e-3 if p.model.dtype == torch.float32 else 5e-2
    found = p.same("padding", f"states under left padding {left:.2g} apart; padded rows", right, UNFIT)
    return found if left <= near else Finding("padding", found.seen, "fails", UNFIT)


UNFIT = "a vector and scores would depend on padding: this architecture is not supported"
