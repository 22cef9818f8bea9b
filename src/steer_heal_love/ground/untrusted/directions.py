"""Directions by layer from a file's tensors, ours or GGUF's: one rule for both.

In: tensors named `PREFIX.N`. Out: directions by layer number, in its order. Refused, all mistakes at once: names
without a whole number, layers below the first, tensors that are no vectors, widths that differ, values that are not
finite.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from steer_heal_love.ground.untrusted.mistakes import refuse

DEEPEST = 10_000
"""layer numbers are below this"""


def directions(
    tensors: Mapping[str, Tensor], name: str, *, prefix: str, first: int, rows: int = 1
) -> dict[int, Float[Tensor, "*k d"]]:
    """The directions in the file called `name`, whose layers are numbered from `first`; `rows` vectors a layer.
    Raises `UserError`."""
    if not tensors:
        refuse(name, ["no tensors; expected a direction a layer"])
    number = re.compile(rf"{re.escape(prefix)}\.(0|[1-9][0-9]{{0,8}})")
    out: dict[int, Tensor] = {}
    wrong = []
    for key, t in tensors.items():
        found = number.fullmatch(key)
        layer = int(found[1]) if found else -1
        if not first <= layer < DEEPEST:
            wrong.append(
                f"{key!r:.100}: expected {prefix}.N with a layer number from {first} to {DEEPEST - 1}"
            )
        elif tuple(t.shape[:-1]) != ((rows,) if rows > 1 else ()) or not t.ndim or not t.numel():
            wanted = f"{rows} vectors" if rows > 1 else "one vector"
            wrong.append(f"{key!r}: shape {tuple(t.shape)}; expected {wanted}")
        elif not torch.isfinite(t).all():
            wrong.append(f"{key!r}: values that are not finite")
        else:
            out[layer] = t
    widths = {layer: t.shape[-1] for layer, t in out.items()}
    if len(set(widths.values())) > 1:
        odd = ", ".join(f"{prefix}.{layer} has {n}" for layer, n in sorted(widths.items())[:6])
        wrong.append(f"widths differ: {odd}")
    refuse(name, wrong)
    return dict(sorted(out.items()))
