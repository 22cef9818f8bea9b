"""From a persona pair to a steering vector on the current student.

In: a model, its tokenizer, a persona, contexts. Out: a `Vector`: one direction a layer, added to the
output of that decoder layer as h ← h + dose·v. A method is one file here with `@methods(name)`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steer_heal_love.config import VectorConfig
from steer_heal_love.ground import models
from steer_heal_love.ground.banks import bank
from steer_heal_love.ground.chat import NEUTRAL_SYSTEM, prompt_ids, template_hash
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.hooks import Doses, added
from steer_heal_love.ground.progress import Track, silent
from steer_heal_love.ground.records import in_order, whole
from steer_heal_love.ground.registry import Registry
from steer_heal_love.ground.states import States, states
from steer_heal_love.nouns import Persona

Method = Callable[[States, States], dict[int, Float[Tensor, " d"]]]
methods: Registry[Method] = Registry("steering method", __name__)
SAYS = {
    "format": "steer-heal-love.vector.1",
    "operation": "add",
    "hook_point": "decoder layer output",
    "layer_numbering": "from 0",
    "positions": "all",
}
"""what a vector's file says of how to apply it; another value is another thing"""


@dataclass(frozen=True)
class Vector:
    """Directions by layer number (from 0), raw norm kept, and where they came from.

    `with v(model, dose=0.75):` steers; vectors add, subtract and scale; `save` and `load` are inverse.
    """

    directions: dict[int, Float[Tensor, " d"]]
    meta: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def train(
        cls,
        model: PreTrainedModel,
        tok: PreTrainedTokenizerBase,
        persona: Persona,
        *,
        method: str = VectorConfig.method,
        contrast: Literal["neg", "neutral"] = VectorConfig.contrast,
        contexts: list[str] | None = None,
        layers: tuple[float, float] = VectorConfig.layers,
        batch_tokens: int = 4096,
        track: Track = silent,
    ) -> Vector:
        """Read the vector at the assistant tag over `contexts` (the shared bank when None).

        Raises `UserError` for an unknown method and for fewer than two contexts.
        """
        return train(
            model, tok, persona, method=method, contrast=contrast, contexts=contexts, layers=layers,
            batch_tokens=batch_tokens, track=track,
        )  # fmt: skip

    def __call__(self, model: PreTrainedModel, dose: float = 1.0) -> AbstractContextManager[Doses]:
        return added(model, self.directions, dose)

    def __add__(self, other: Vector) -> Vector:
        shared = self.directions.keys() | other.directions.keys()
        zero = torch.zeros(())
        return Vector(
            {i: self.directions.get(i, zero) + other.directions.get(i, zero) for i in sorted(shared)},
            {**self.meta, "method": f"({self.meta.get('method')} + {other.meta.get('method')})"},
        )

    def __mul__(self, factor: float) -> Vector:
        return Vector({i: v * factor for i, v in self.directions.items()}, dict(self.meta))

    __rmul__ = __mul__

    def __neg__(self) -> Vector:
        return self * -1.0

    def __sub__(self, other: Vector) -> Vector:
        return self + -other

    def norm(self) -> float:
        """Root of the summed squared norms over layers."""
        return math.sqrt(sum(v.pow(2).sum().item() for v in self.directions.values()))

    def cosine(self, other: Vector) -> float:
        """Cosine over the layers both have, concatenated; NaN where they share none."""
        shared = self.directions.keys() & other.directions.keys()
        if not shared:
            return math.nan
        a, b = (torch.cat([v.directions[i].float() for i in sorted(shared)]) for v in (self, other))
        return torch.cosine_similarity(a, b, dim=0).item()

    def save(self, path: str | Path) -> None:
        """Safetensors: one tensor a layer, and a header that says how to apply them."""
        header = SAYS | {"norm": f"{self.norm():.6g}", "meta": json.dumps(self.meta)}
        tensors = {f"layer.{i}": v.detach().float().cpu().contiguous() for i, v in self.directions.items()}
        with whole(Path(path)) as scratch:
            scratch.write_bytes(in_order(save(tensors, metadata=header)))

    @classmethod
    def load(cls, path: str | Path) -> Vector:
        """The vector at `path`. Raises `UserError` when it is missing, not one of ours, or wrong in any other way."""
        from steer_heal_love.vector.file import read

        return cls(*read(Path(path), SAYS))


def train(
    model: PreTrainedModel,
    tok: PreTrainedTokenizerBase,
    persona: Persona,
    *,
    method: str,
    contrast: str,
    contexts: list[str] | None,
    layers: tuple[float, float],
    batch_tokens: int,
    track: Track,
) -> Vector:
    extract = methods[method]
    contexts = bank("contexts") if contexts is None else contexts
    if len(contexts) < 2:
        raise UserError(f"a vector needs at least 2 contexts, found {len(contexts)}.")
    at = models.band(model, layers)
    other = persona.system("neg") if contrast == "neg" else NEUTRAL_SYSTEM
    with track("vector", 2 * len(contexts)) as advance:
        pos, neg = (
            states(model, [prompt_ids(tok, c, system) for c in contexts], at, batch_tokens, advance)
            for system in (persona.system("pos"), other)
        )
    half_a, half_b = (
        Vector(extract(*({i: s[k::2] for i, s in pole.items()} for pole in (pos, neg)))) for k in (0, 1)
    )
    meta = {
        "persona": persona.name, "pos": persona.pos, "neg": persona.neg, "method": method,
        "contrast": contrast, "contexts": len(contexts), "layers": at,
        "reliability": round(half_a.cosine(half_b), 4),
        "share_of_state_norm": {
            str(i): round((pos[i] - neg[i]).mean(0).norm().item() / pos[i].norm(dim=1).mean().item(), 4)
            for i in at
        },
        "template": template_hash(tok), "model": models.fingerprint(model),
    }  # fmt: skip
    return Vector(extract(pos, neg), meta)
