"""Whether every weight of the checkpoint is in the model, and every weight of the model in the checkpoint.

Loading refuses a checkpoint that lacks a weight; here stands what it took, and what it left out.
"""

from __future__ import annotations

from steer_heal_love.doctor import Finding, Patient, check
from steer_heal_love.ground import loading


@check("weights", 0)
def weights(p: Patient) -> Finding:
    parameters = list(p.model.parameters())
    millions = sum(w.numel() for w in parameters) / 1e6
    seen = f"{len(parameters)} tensors, {millions:.4g} million numbers, none missing from the checkpoint"
    if found := loading.notes(p.model, "weights"):
        return Finding(
            "weights", f"{seen}; {'; '.join(found)}", "note", "nothing, if that is what you expect"
        )
    return Finding("weights", seen, "well")
