"""Whether an update folded into the weights is the update beside them, in nats, and leaves the weights as they were."""

from __future__ import annotations

from steer_heal_love.doctor import Finding, Patient, check
from steer_heal_love.doctor.update import drawn
from steer_heal_love.ground import models
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.ground.weights import folded


@check("fold", 10)
def fold(p: Patient) -> Finding:
    update, before = drawn(p), models.fingerprint(p.model)
    with adapted(p.model, update.factors, update.scaling):
        beside = [p.alone(s) for s in p.sequences[:2]]
    with folded(p.model, [update]):
        inside = [p.alone(s) for s in p.sequences[:2]]
    size = p.kl_nats(beside, p.reference[:2])
    if models.fingerprint(p.model) != before:
        return Finding("fold", "the weights were not restored", "fails", "report this architecture")
    return p.same(
        "fold",
        f"an update that moves the model by {size:.2g} nats, folded and beside",
        p.kl_nats(inside, beside),
        "training and export would differ: see the advice on the number type",
    )
