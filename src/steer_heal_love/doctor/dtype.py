"""Whether the weights' number type suits the device, and whether kernels that would make the model faster are left out."""

from __future__ import annotations

import torch

from steer_heal_love.doctor import Finding, Patient, check
from steer_heal_love.ground import loading
from steer_heal_love.ground.devices import auto_dtype, native_bfloat16


@check("number type", 15)
def dtype(p: Patient) -> Finding:
    own, device = p.model.dtype, p.model.device.type
    best = auto_dtype(device)
    seen = f"{str(own).removeprefix('torch.')} on {device}"
    if device == "cpu" and not native_bfloat16():
        seen += ", whose processor only emulates bfloat16"
    left_out = loading.notes(p.model, "kernels")
    seen = "; ".join([seen, *left_out])
    if own == best:
        return Finding("number type", seen, "note" if left_out else "well")
    if own == torch.float32:
        return Finding(
            "number type",
            seen,
            "note",
            "exact, at twice the memory and less speed; --dtype auto takes bfloat16",
        )
    if own == torch.float16:
        return Finding(
            "number type",
            seen,
            "note",
            f"numbers above 65,504 overflow; --dtype {str(best).removeprefix('torch.')} is safer",
        )
    return Finding("number type", seen, "note", f"--dtype {str(best).removeprefix('torch.')} is faster here")
