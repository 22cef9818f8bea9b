"""Final hidden states that several instruments ask for: a text that a model has read is not read by it again.

In: a name for the model as it stands, and sequences. Out: each one's final hidden states over its answer, on the host.
And what follows from such states without the decoder, by the output layer alone. In a team each process reads an answer or
leaves it to another, under every model the same, so that no states travel, only what follows from them.

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
from steer_heal_love.ground.devices import sent_together
from steer_heal_love.ground.memory import one_ahead
from steer_heal_love.ground.progress import Advance
from steer_heal_love.ground.scoring import at_a_time, chunk, hidden_states
from steer_heal_love.nouns import Tokens

AT_ONCE = 8
"""chunks of tokens whose states are on the device at a time"""


Hidden = list[Float[Tensor, "_ d"] | None]
"""final hidden states over each answer, a row a token; None where another process of the team has them"""


class StateCache:
    """Hidden states by model and text, in the model's type, on the host: two bytes a number in bf16."""

    def __init__(self) -> None:
        self._states: dict[str, dict[Tokens, Tensor]] = {}
        self._owners: dict[tuple[int, ...], int] = {}
        """which process of the team has an answer"""

    def read(
        self,
        name: str,
        model: PreTrainedModel,
        sequences: list[Tokens],
        *,
        batch_tokens: int,
        context: Callable[[], AbstractContextManager[None]] = nullcontext,
        advance: Advance = lambda _n: None,
    ) -> Hidden:
        """The states of `sequences` by the model that is called `name`. Those that it has read before are taken from here;
        `context`, which makes it of `model`, is entered only for the others. What a model without a name reads is not kept."""
        known = self._states.setdefault(name, {}) if name else {}
        missing = [s for s in self._own(sequences) if s not in known]
        advance(len(sequences) - len(missing))
        if missing:
            with context(), team.alone():
                found = hidden_states(model, missing, batch_tokens=batch_tokens, advance=advance)
            known.update(zip(missing, found, strict=True))
        return [known.get(s) for s in sequences]

    def _own(self, sequences: list[Tokens]) -> list[Tokens]:
        """Those whose answers are this process's, each once. New answers go to the processes in turn, by length."""
        for a in sorted({s.answer: None for s in sequences if s.answer not in self._owners}, key=len):
            self._owners[a] = len(self._owners) % team.size()
        return [s for s in dict.fromkeys(sequences) if self._owners[s.answer] == team.rank()]

    def keep(self, *names: str) -> None:
        """Forget every model but these."""
        self._states = {name: states for name, states in self._states.items() if name in names}


@torch.no_grad()
def from_states(
    model: PreTrainedModel,
    given: Sequence[Sequence[Tensor | None]],
    values: Callable[..., Tensor],
) -> list[Tensor]:
    """`values(*parts)` of each text's tokens, on the host: `given` holds, for every argument, a tensor [t, ...] of each text
    with a row a token. Logits exist for a chunk of tokens at a time. A text of which this process lacks a part is left to another."""
    texts = list(zip(*given, strict=True))
    mine = [i for i, parts in enumerate(texts) if all(part is not None for part in parts)]
    if team.size() == 1 and len(mine) < len(texts):
        raise RuntimeError("states that another process of the team has, asked for outside it")
    lengths = {i: len(texts[i][0]) for i in mine}
    out, most = [torch.empty(0)] * len(texts), AT_ONCE * chunk(model)

    def look(rows: list[int]) -> list[Tensor]:
        sides = [
            sent_together(part, model.device).split(chunk(model))
            for part in zip(*(texts[i] for i in rows), strict=True)
        ]
        found = torch.cat([values(*parts) for parts in zip(*sides, strict=True)])
        return list(found.split([lengths[i] for i in rows]))

    def put(rows: list[int], found: list[Tensor]) -> None:
        for i, part in zip(rows, found, strict=True):
            out[i] = part

    with team.alone():
        one_ahead(at_a_time(mine, lambda rows: sum(lengths[i] for i in rows) <= most), look, put)
    return team.filled(out, mine)
