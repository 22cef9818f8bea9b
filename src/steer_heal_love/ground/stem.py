"""A batch of prompts read once, thought on, and branched from, with one key/value cache.

`read` gives a `Stem`; `feed` appends given tokens to every row, `think` the model's own likeliest ones, `fork`
makes k copies of each row. `hidden` is always the final hidden state of each row's last real token, from which
what comes next is predicted.

Invariant: a row's values are those of its own tokens read alone, whatever it was fed beside.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from steer_heal_love.ground.models import body, head
from steer_heal_love.ground.replay import steps
from steer_heal_love.ground.scoring import left_pad, log_likelihood, positions


@dataclass
class Stem:
    """Rows read so far: their cache, which of its columns hold real tokens, and where each row stands."""

    model: PreTrainedModel
    cache: DynamicCache
    mask: Int[Tensor, "b s"]
    hidden: Float[Tensor, "b d"]

    @classmethod
    @torch.no_grad()
    def read(cls, model: PreTrainedModel, prompts: list[tuple[int, ...]]) -> Stem:
        ids, mask = left_pad(prompts, model.device)
        width = model.config.get_text_config().hidden_size
        start = torch.zeros(len(prompts), width, dtype=model.dtype, device=model.device)
        stem = cls(model, DynamicCache(config=model.config), mask[:, :0], start)
        stem._forward(ids, mask.bool())
        return stem

    def fork(self, k: int) -> None:
        """Each row k times, its copies side by side."""
        self.cache.batch_repeat_interleave(k)
        self.mask, self.hidden = (x.repeat_interleave(k, 0) for x in (self.mask, self.hidden))

    @torch.no_grad()
    def feed(self, texts: list[tuple[int, ...]]) -> list[Float[Tensor, " _"]]:
        """Append one text a row; the NLL of each of its tokens, in nats."""
        width = max(map(len, texts))
        ids = torch.tensor([[*t, *[0] * (width - len(t))] for t in texts], device=self.model.device)
        real = torch.tensor([[i < len(t) for i in range(width)] for t in texts], device=self.model.device)
        before = self.hidden
        hidden = self._forward(ids, real)
        predicts = torch.cat([before.unsqueeze(1), hidden[:, :-1]], 1)
        nll = -log_likelihood(self.model, predicts[real], ids[real])
        return [part.cpu() for part in nll.split([len(t) for t in texts])]

    @torch.no_grad()
    def think(self, tokens: int, ends: frozenset[int]) -> list[tuple[int, ...]]:
        """Append the likeliest tokens, at most so many; what would end the turn ends the row and is left out."""
        stop = torch.tensor(sorted(ends), device=self.model.device)
        held, chosen = self.hidden.clone(), head(self.model, self.hidden).argmax(-1)
        going = ~torch.isin(chosen, stop)
        thought = chosen.new_empty(len(chosen), 0)

        def choose(hidden: Tensor, _step: Tensor) -> Tensor:
            held.copy_(torch.where(going.unsqueeze(1), hidden, held))
            token = head(self.model, hidden).argmax(-1)
            going.logical_and_(~torch.isin(token, stop))
            return token

        while thought.shape[1] < tokens and going.any():
            left = tokens - thought.shape[1]
            found = steps(self.model, self.cache, self.mask, chosen, left, choose, lambda _: ~going.any())
            fed = torch.cat([chosen.unsqueeze(1), found[:, :-1]], 1)
            thought, chosen = torch.cat([thought, fed], 1), found[:, -1]
            real = torch.isin(thought, stop).cumsum(1)[:, -fed.shape[1] :] == 0
            self.mask = torch.cat([self.mask, real.to(self.mask)], 1)
        self.hidden = held
        lengths = (torch.isin(thought, stop).cumsum(1) == 0).sum(1)
        return [tuple(row[:n]) for row, n in zip(thought.tolist(), lengths.tolist(), strict=True)]

    def _forward(self, ids: Int[Tensor, "b t"], real: Bool[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Final hidden states over `ids`; those that are not `real` are hidden from everything after them."""
        self.mask = torch.cat([self.mask, real.long()], 1)
        hidden = body(self.model)(
            input_ids=ids, attention_mask=self.mask, position_ids=positions(self.mask)[:, -ids.shape[1] :],
            past_key_values=self.cache, use_cache=True,
        ).last_hidden_state  # fmt: skip
        last = real.long().mul(torch.arange(1, ids.shape[1] + 1, device=ids.device)).argmax(1)
        here = hidden[torch.arange(len(hidden), device=ids.device), last]
        self.hidden = torch.where(real.any(1, keepdim=True), here, self.hidden)
        return hidden
