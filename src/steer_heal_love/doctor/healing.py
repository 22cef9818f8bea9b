"""Whether one step of heal lowers the loss and leaves the base as it was, and how much of the band a LoRA reaches."""

from __future__ import annotations

from dataclasses import replace

from steer_heal_love.config import HealConfig
from steer_heal_love.doctor import Finding, Patient, check
from steer_heal_love.ground import models
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.ground.scoring import token_nll
from steer_heal_love.heal.examples import Example
from steer_heal_love.heal.train import heal
from steer_heal_love.nouns import Adapter


@check("heal", 12)
def healing(p: Patient) -> Finding:
    s, hidden = p.sequences[0], p.reference[0].cpu()
    config = replace(HealConfig(), rank=2, alpha=4.0, epochs=4, batch=1, soft=0.0, anchor=0.0, validation=0.0)
    before, was = models.fingerprint(p.model), token_nll(p.model, [s])[0].mean().item()
    adapter, _ = heal(p.model, [Example(s, hidden, "prompt")], [], config, seed=0)
    with adapted(p.model, adapter.factors, adapter.scaling):
        now = token_nll(p.model, [s])[0].mean().item()
    seen = f"NLL {was:.4f} → {now:.4f} in {config.epochs} steps; {reach(p, adapter):.0%} of the band's matrices adapted"
    if models.fingerprint(p.model) != before:
        return Finding("heal", f"{seen}; the base was changed", "fails", "report this architecture")
    if not now < was:
        return Finding(
            "heal", seen, "fails", "training does not lower its loss: this architecture is not supported"
        )
    if reach(p, adapter) < 0.995:
        return Finding(
            "heal",
            seen,
            "note",
            "experts and other fused weights stay as they are; expect a smaller shift a round",
        )
    return Finding("heal", seen, "well")


def reach(p: Patient, adapter: Adapter) -> float:
    """Share of the numbers in the band's matrices that belong to adapted modules."""
    blocks = models.layers(p.model)
    band = [blocks[i] for i in models.band(p.model, p.config.heal.layers)]
    whole = sum(w.numel() for block in band for w in block.parameters() if w.dim() > 1)
    ours = sum(p.model.get_submodule(name).weight.numel() for name in adapter.factors)
    return ours / whole if whole else 0.0
