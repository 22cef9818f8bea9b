"""Whether dose 0 and a fresh adapter change nothing, and a real dose does change every token's state."""

from __future__ import annotations

from steer_heal_love.doctor import Finding, Patient, check
from steer_heal_love.ground.hooks import adapted, added
from steer_heal_love.heal.lora import fresh


@check("identity", 4)
def identity(p: Patient) -> Finding:
    start = fresh(p.model, rank=2, alpha=4.0, share=p.config.heal.layers, seed=0)
    with added(p.model, p.directions, 0.0):
        zero = p.kl_nats([p.alone(p.sequences[0])], p.reference[:1])
    with adapted(p.model, start.factors, start.scaling):
        bare = p.kl_nats([p.alone(p.sequences[0])], p.reference[:1])
    with added(p.model, p.directions, 1.0):
        moved = p.alone(p.sequences[0])
    base = p.reference[0]
    least = ((moved - base).float().norm(dim=1) / base.float().norm(dim=1)).min().item()
    seen = f"dose 0: {zero:.2g} nats, fresh adapter: {bare:.2g} nats; a dose moves every state by {least:.2g} or more"
    if not max(zero, bare) <= 1e-6:
        return Finding(
            "identity", seen, "fails", "hooks change what they should leave: report this architecture"
        )
    if not least > 1e-3:
        return Finding("identity", seen, "fails", "the layers that were found are not those that run")
    return Finding("identity", seen, "well")
