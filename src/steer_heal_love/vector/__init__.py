"""From a persona pair to a steering vector on the current student.

In: a model, its tokenizer, a persona, contexts. Out: a `Vector`: one direction a layer, added to the
output of that decoder layer, or of a linear module in it, as h ← h + dose·v. A method is one file here with
`@methods(name)`; one that reads the weights too, or whose find is no direction, says so in `needs`.
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
from safetensors.torch import save
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steer_heal_love.config import VectorConfig
from steer_heal_love.ground import models, places
from steer_heal_love.ground.banks import bank
from steer_heal_love.ground.chat import NEUTRAL_SYSTEM, prompt_ids, template_hash
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.hooks import Doses
from steer_heal_love.ground.operations import Steering, operations, rows
from steer_heal_love.ground.places import Directions, Rows
from steer_heal_love.ground.progress import Track, silent
from steer_heal_love.ground.records import in_order, whole
from steer_heal_love.ground.registry import Registry
from steer_heal_love.ground.states import States, states
from steer_heal_love.ground.writers import Writers
from steer_heal_love.nouns import Persona

Method = Callable[..., dict[int, Rows]]
"""states of the pos pole, states of the neg pole, and the weights of what writes to the stream where it needs them"""
methods: Registry[Method] = Registry("steering method", __name__)


@dataclass(frozen=True)
class Needs:
    """What a steering method needs or gives besides directions found in states.

    `weights`: a third argument, `ground.writers.Writers`. `operation`: the one operation that takes what it finds.
    """

    weights: bool = False
    operation: str = ""


needs: Registry[Needs] = Registry("needs of a steering method", __name__)
"""by the method's name, of those that need anything"""


def applied_by(method: str, operation: str = "add") -> str:
    """The operation that applies what a method finds where `operation` is asked for; add stands for the method's own.

    Raises `UserError` where that operation doesn't take it.
    """
    own = needs.get(method, Needs()).operation
    if operation != own and (rows.get(operation, 1) > 1 or (own and operation != "add")):
        raise UserError(
            f"the steering operation {operation} doesn't take what the method {method} finds; "
            f"{own or 'any operation for directions'} does."
        )
    return own or operation


SAYS = {
    "format": "steer-heal-love.vector.1",
    "operation": "add",
    "hook_point": "decoder layer output",
    "layer_numbering": "from 0",
    "positions": "all",
}
"""what a vector's file says of how to apply it; another value is another thing, but for what follows"""
OPERATIONS = ("add", "transport")
"""operations that a vector's file may say"""
HOOKED = "output of "
"""what its hook point begins with where that is a linear module of every layer; the module's name follows"""


@dataclass(frozen=True)
class Vector:
    """A steering vector: one direction for each of some layers.

    `directions`: by layer number, from 0; a direction has the width of the hidden state and keeps its own length.
    `meta`: the persona, model and settings that it was extracted with.

    `with v(model, dose=0.75):` steers a model. Vectors can be added, subtracted and multiplied by a number. `load`
    gives back exactly what `save` wrote.
    """

    directions: dict[int, Rows]
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> Directions:
        """The directions with the module at whose output they act and the operation that they are made for."""
        return places.of(self.directions)

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
        hook: str = VectorConfig.hook,
        batch_tokens: int = 4096,
        track: Track = silent,
    ) -> Vector:
        """Extract a vector from the hidden states at the assistant tag, averaged over `contexts` (the shipped ones when None).

        `layers`: first and last layer, as shares of the depth. `hook`: the linear module of each layer whose output is
        read; empty for the residual stream.

        Raises `UserError` for an unknown method, for a module that a layer doesn't have, and for fewer than two contexts.
        """
        return train(
            model,
            tok,
            persona,
            method=method,
            contrast=contrast,
            contexts=contexts,
            layers=layers,
            hook=hook,
            batch_tokens=batch_tokens,
            track=track,
        )

    def __call__(self, model: PreTrainedModel, dose: float = 1.0) -> AbstractContextManager[Doses]:
        return Steering(self.directions)(model, dose)

    def moves(self, at: States) -> Directions:
        """What dose 1 adds to the mean of these states, by layer. For the operation add this is the vector itself."""
        own = self.place
        act = operations[own.operation or "add"]
        each = lambda i, h: act(h.float()[None], own[i].float().to(h.device), 1.0)[0]
        return Directions({i: each(i, h).mean(0) for i, h in at.items() if i in own}, hook=own.hook)

    def __add__(self, other: Vector) -> Vector:
        ours, theirs = self.place, other.place
        if (ours.hook, ours.operation) != (theirs.hook, theirs.operation):
            raise UserError(
                "these two vectors act at different places or by different operations; they have no sum."
            )
        shared = self.directions.keys() | other.directions.keys()
        zero = torch.zeros(())
        return Vector(
            ours.like({i: ours.get(i, zero) + theirs.get(i, zero) for i in sorted(shared)}),
            {**self.meta, "method": f"({self.meta.get('method')} + {other.meta.get('method')})"},
        )

    def __mul__(self, factor: float) -> Vector:
        return Vector(self.place.like({i: v * factor for i, v in self.directions.items()}), dict(self.meta))

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
        a, b = (torch.cat([v.directions[i].float().flatten() for i in sorted(shared)]) for v in (self, other))
        return torch.cosine_similarity(a, b, dim=0).item()

    def save(self, path: str | Path) -> None:
        """Write safetensors: one tensor a layer, and a header that says how to apply them."""
        own = self.place
        header = SAYS | {"norm": f"{self.norm():.6g}", "meta": json.dumps(self.meta)}
        if own.operation:
            header["operation"] = own.operation
        if own.hook:
            header["hook_point"] = HOOKED + own.hook
        tensors = {f"layer.{i}": v.detach().float().cpu().contiguous() for i, v in self.directions.items()}
        with whole(Path(path)) as scratch:
            scratch.write_bytes(in_order(save(tensors, metadata=header)))

    @classmethod
    def load(cls, path: str | Path) -> Vector:
        """Read the vector at `path`. Raises `UserError` if it is missing, or is not a vector of this tool."""
        from steer_heal_love.vector.file import read

        return cls(*read(Path(path), SAYS, OPERATIONS, HOOKED))


def find(
    model: PreTrainedModel,
    method: str,
    pos: States,
    neg: States,
    *,
    hook: str = "",
    writers: Writers | None = None,
) -> Directions:
    """What a method finds in the poles' states at `hook`, with the place and the operation that it is for. `writers`: those
    of the model, where they are at hand from before.

    Raises `UserError` for an unknown method, and for one that reads the writers of the stream but not its states.
    """
    extract, need = methods[method], needs.get(method, Needs())
    if need.weights and hook:
        raise UserError(
            f"the steering method {method} is one of the residual stream, so it can't be read at {hook}: leave vector.hook empty."
        )
    found = extract(pos, neg, writers or Writers(model)) if need.weights else extract(pos, neg)
    return Directions(found, hook=hook, operation=need.operation)


def train(
    model: PreTrainedModel,
    tok: PreTrainedTokenizerBase,
    persona: Persona,
    *,
    method: str,
    contrast: str,
    contexts: list[str] | None,
    layers: tuple[float, float],
    hook: str,
    batch_tokens: int,
    track: Track,
) -> Vector:
    methods[method]
    contexts = bank("contexts") if contexts is None else contexts
    if len(contexts) < 2:
        raise UserError(f"a vector needs at least 2 contexts, found {len(contexts)}.")
    at = models.band(model, layers)
    other = persona.system("neg") if contrast == "neg" else NEUTRAL_SYSTEM
    with track("vector", 2 * len(contexts)) as advance:
        pos, neg = (
            states(model, [prompt_ids(tok, c, system) for c in contexts], at, batch_tokens, advance, hook)
            for system in (persona.system("pos"), other)
        )
    writers = Writers(model)
    directions = lambda pos, neg: find(model, method, pos, neg, hook=hook, writers=writers)
    halves = ([{i: pole[i][k::2] for i in at} for pole in (pos, neg)] for k in (0, 1))
    half_a, half_b = (Vector(Vector(directions(*half)).moves(neg)) for half in halves)
    meta = {
        "persona": persona.name,
        "pos": persona.pos,
        "neg": persona.neg,
        "method": method,
        "contrast": contrast,
        "contexts": len(contexts),
        "layers": at,
        "hook": hook,
        "reliability": round(half_a.cosine(half_b), 4),
        "share_of_state_norm": {
            str(i): round((pos[i] - neg[i]).mean(0).norm().item() / pos[i].norm(dim=1).mean().item(), 4)
            for i in at
        },
        "template": template_hash(tok),
        "model": models.fingerprint(model),
    }
    return Vector(directions(pos, neg), meta)
