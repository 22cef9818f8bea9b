"""Final hidden states that several instruments ask for: a text that a model has read is not read by it again.

In: a name for the model as it stands, and sequences. Out: each one's final hidden states over its answer, on the host.
And what follows from such states without the decoder, by the output layer alone.

Invariant: what is read back is what reading again would give. So a name stands for one state of the weights, with
everything that is added to them, and for nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from steer_heal_love.ground import team
from steer_heal_love.ground.devices import sent
from steer_heal_love.ground.memory import one_ahead
from steer_heal_love.ground.progress import Advance
from steer_heal_love.ground.scoring import at_a_time, chunk, hidden_states
from steer_heal_love.nouns import Tokens

AT_ONCE = 8
"""chunks of tokens whose states are on the device at a time"""


class StateCache:
    """Hidden states by model and text, in the model's type, on the host: two bytes a number in bf16."""

    def __init__(self) -> None:
        self._states: dict[str, dict[Tokens, Tensor]] = {}

    def read(
        self,
        name: str,
        model: PreTrainedModel,
        sequences: list[Tokens],
        *,
        batch_tokens: int,
        context: Callable[[], AbstractContextManager[None]] = nullcontext,
        advance: Advance = lambda _n: None,
    ) -> list[Float[Tensor, "_ d"]]:
        """The states of `sequences` by the model that is called `name`. Those that it has read before are taken from here;
        `context`, which makes it of `model`, is entered only for the others."""
        known = self._states.setdefault(name, {})
        missing = [s for s in dict.fromkeys(sequences) if s not in known]
        advance(len(sequences) - len(missing))
        if missing:
            with context():
                found = hidden_states(model, missing, batch_tokens=batch_tokens, advance=advance)
            known.update(zip(missing, found, strict=True))
        return [known[s] for s in sequences]

    def keep(self, *names: str) -> None:
        """Forget every model but these."""
        self._states = {name: states for name, states in self._states.items() if name in names}


@torch.no_grad()
def from_states(
    model: PreTrainedModel,
    given: Sequence[list[Tensor]],
    values: Callable[..., Tensor],
) -> list[Tensor]:
    """`values(*parts)` of each text's tokens, on the host: `given` holds, for every argument, a tensor [t, ...] of each text
    with a row a token. Logits exist for a chunk of tokens at a time."""
    lengths = [len(part) for part in given[0]]
    out, most = [torch.empty(0)] * len(lengths), AT_ONCE * chunk(model)

    def look(rows: list[int]) -> list[Tensor]:
        sides = [sent(torch.cat([part[i] for i in rows]), model.device).split(chunk(model)) for part in given]
        return list(
            torch.cat([values(*parts) for parts in zip(*sides, strict=True)]).split(
                [lengths[i] for i in rows]
            )
        )

    def put(rows: list[int], found: list[Tensor]) -> None:
        for i, part in zip(rows, found, strict=True):
            out[i] = part

    with team.sharing(range(len(lengths))) as mine:
        one_ahead(at_a_time(mine, lambda rows: sum(lengths[i] for i in rows) <= most), look, put)
    return team.filled(out, mine)
