"""Whether layers are numbered as they run: what a hook reads at layer i is the library's own hidden state i + 1."""

from __future__ import annotations

import torch

from steer_heal_love.doctor import Finding, Patient, check
from steer_heal_love.ground import models
from steer_heal_love.ground.hooks import captured

NEAR = {torch.float32: 1e-4}


@check("layers", 3)
@torch.no_grad()
def numbering(p: Patient) -> Finding:
    depth, said = len(models.layers(p.model)), p.model.config.get_text_config().num_hidden_layers
    if depth != said:
        return Finding(
            "layers", f"{depth} found, the config says {said}", "fails", "this architecture is not supported"
        )
    ids = torch.tensor([p.prompts[0]], device=p.model.device)
    theirs = models.body(p.model)(input_ids=ids, use_cache=False, output_hidden_states=True)
    theirs = getattr(theirs, "hidden_states", None)
    at = models.band(p.model, p.config.vector.layers)
    if theirs is None or len(theirs) != depth + 1:
        return Finding("layers", f"{depth} layers; the library tells no hidden states to compare", "skipped")
    # The last of the library's states has passed the final norm, so layers before it are compared.
    wanted = list(range(depth - 1))
    read = captured(p.model, wanted, input_ids=ids, use_cache=False) if wanted else {}
    apart = [
        (read[i] - theirs[i + 1][:, -1].float()).norm() / theirs[i + 1][:, -1].float().norm() for i in wanted
    ]
    worst = max((a.item() for a in apart), default=0.0)
    fine = worst <= NEAR.get(p.model.dtype, 1e-2)
    seen = f"{depth}, numbered from 0 as they run ({worst:.1g} apart); steered at {at[0]}–{at[-1]}"
    return Finding(
        "layers",
        seen,
        "well" if fine else "fails",
        "" if fine else "the layers that were found are not those that run",
    )
