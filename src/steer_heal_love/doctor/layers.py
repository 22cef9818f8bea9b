"""Whether layers are numbered as they run: what is added at layer i is seen from layer i on, and nowhere before."""

from __future__ import annotations

import torch

from steer_heal_love.doctor import Finding, Patient, check
from steer_heal_love.ground import models
from steer_heal_love.ground.hooks import added, captured

SEEN = 1e-4
"""least change of a state, as a share of its norm, by which it shows what was added; anything less is rounding"""


@check("layers", 3)
@torch.no_grad()
def numbering(p: Patient) -> Finding:
    depth, said = len(models.layers(p.model)), p.model.config.get_text_config().num_hidden_layers
    if depth != said:
        return Finding(
            "layers", f"{depth} found, the config says {said}", "fails", "this architecture is not supported"
        )
    at = sorted(p.directions)
    wrong = [i for i in sorted({0, at[0], at[-1], depth - 1}) if seen_from(p, i) != list(range(i, depth))]
    seen = f"{depth}, numbered from 0; steered at {at[0]}–{at[-1]}"
    if wrong:
        return Finding(
            "layers",
            f"{seen}; what is added at {wrong} is not seen from there on",
            "fails",
            "the layers that were found are not those that run",
        )
    return Finding("layers", f"{seen}; what is added at one is seen from it on, and not before", "well")


def seen_from(p: Patient, index: int) -> list[int]:
    """The layers whose output changes when something is added at `index`."""
    everywhere = list(range(len(models.layers(p.model))))
    ids = torch.tensor([p.prompts[0]], device=p.model.device)
    plain = captured(p.model, everywhere, input_ids=ids, use_cache=False)
    with added(p.model, {index: next(iter(p.directions.values()))}, 1.0):
        moved = captured(p.model, everywhere, input_ids=ids, use_cache=False)
    return [i for i in everywhere if (moved[i] - plain[i]).norm() > SEEN * plain[i].norm()]
