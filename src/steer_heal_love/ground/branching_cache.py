"""A batch of prompts read once, thought on, and branched from, with one key/value cache.

`prefill` gives a `BranchingCache`; `feed` appends given tokens to every row, `think` the model's own likeliest ones, `fork`
makes k copies of each row. `hidden` is always the final hidden state of each row's last real token, from which
what comes next is predicted. Where the model's way of reading doesn't allow padding inside a row (`reading.Way`), or no
longer does as rows grow, there is no cache, and rows are read whole each time.

Invariant: a row's values are those of its own tokens read alone, whatever it was fed beside.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from steer_heal_love.ground.decode import sample
from steer_heal_love.ground.padding import left_pad
from steer_heal_love.ground.parts import narrow_head
from steer_heal_love.ground.reading import blank, forward, positions, select, way
from steer_heal_love.ground.replay import steps
from steer_heal_love.ground.scoring import last_hidden, log_likelihood, token_nll
from steer_heal_love.nouns import Tokens


@dataclass
class BranchingCache:
    """Rows read so far: their tokens, their cache if any, which of its columns are real, and where each row stands."""

    model: PreTrainedModel
    rows: list[tuple[int, ...]]
    cache: DynamicCache | None
    mask: Int[Tensor, "b s"]
    hidden: Float[Tensor, "b d"]

    @classmethod
    @torch.no_grad()
    def prefill(cls, model: PreTrainedModel, prompts: list[tuple[int, ...]]) -> BranchingCache:
        ids, mask = left_pad(prompts, model.device)
        if ids.shape[1] > way(model).inside:
            return cls(model, list(prompts), None, mask, last_hidden(model, prompts))
        width = model.config.get_text_config(decoder=True).hidden_size
        start = torch.zeros(len(prompts), width, dtype=model.dtype, device=model.device)
        branching = cls(model, list(prompts), blank(model), mask[:, :0], start)
        branching._forward(ids, mask.bool())
        return branching

    def fork(self, k: int) -> None:
        """Each row k times, its copies side by side."""
        each = torch.arange(len(self.rows), device=self.model.device).repeat_interleave(k)
        if self.cache is not None:
            select(self.cache, each)
        self.rows = [self.rows[i] for i in each.tolist()]
        self.mask, self.hidden = self.mask[each], self.hidden[each]

    def cached(self, more: int) -> bool:
        """Whether the cache takes so many more columns; once it doesn't, it is dropped."""
        if self.cache is not None and self.mask.shape[1] + more > way(self.model).inside:
            self.cache = None
        return self.cache is not None

    @torch.no_grad()
    def feed(self, texts: list[tuple[int, ...]]) -> list[Float[Tensor, " _"]]:
        """Append one text a row; the NLL of each of its tokens, in nats."""
        width = max(map(len, texts))
        before, rows = self.rows, [r + t for r, t in zip(self.rows, texts, strict=True)]
        self.rows = rows
        if not self.cached(width):
            self.hidden = last_hidden(self.model, rows)
            pairs = [Tokens(r, t) for r, t in zip(before, texts, strict=True)]
            return token_nll(self.model, pairs, batch_tokens=sum(map(len, rows)))
        ids = torch.tensor([[*t, *[0] * (width - len(t))] for t in texts], device=self.model.device)
        real = torch.tensor([[i < len(t) for i in range(width)] for t in texts], device=self.model.device)
        stood = self.hidden
        hidden = self._forward(ids, real)
        predicts = torch.cat([stood.unsqueeze(1), hidden[:, :-1]], 1)
        nll = -log_likelihood(self.model, predicts[real], ids[real])
        return [part.cpu() for part in nll.split([len(t) for t in texts])]

    @torch.no_grad()
    def think(self, tokens: int, ends: frozenset[int]) -> list[tuple[int, ...]]:
        """Append the likeliest tokens, at most so many; what would end the turn ends the row and is left out."""
        thoughts = self._think(tokens, ends) if self.cached(tokens) else self._think_again(tokens, ends)
        self.rows = [r + t for r, t in zip(self.rows, thoughts, strict=True)]
        return thoughts

    def _think_again(self, tokens: int, ends: frozenset[int]) -> list[tuple[int, ...]]:
        """`think` without the cache."""
        if not tokens:
            return [()] * len(self.rows)
        found = sample(self.model, self.rows, ends=ends, max_new_tokens=tokens, seed=0, temperature=0)
        thoughts = [tuple(t for t in f if t not in ends) for f in found]
        self.hidden = last_hidden(self.model, [r + t for r, t in zip(self.rows, thoughts, strict=True)])
        return thoughts

    def _think(self, tokens: int, ends: frozenset[int]) -> list[tuple[int, ...]]:
        """`think` with the cache."""
        stop = torch.tensor(sorted(ends), device=self.model.device)
        held, chosen = self.hidden.clone(), narrow_head(self.model, self.hidden).argmax(-1)
        going = ~torch.isin(chosen, stop)
        thought = chosen.new_empty(len(chosen), 0)

        def choose(hidden: Tensor, _step: Tensor) -> Tensor:
            held.copy_(torch.where(going.unsqueeze(1), hidden, held))
            token = narrow_head(self.model, hidden).argmax(-1)
            going.logical_and_(~torch.isin(token, stop))
            return token

        while thought.shape[1] < tokens and going.any():
            left = tokens - thought.shape[1]
            found, _ = steps(self.model, self.cache, self.mask, chosen, left, choose, lambda _: ~going)
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
        hidden, _ = forward(self.model, ids, self.mask, positions(self.mask)[:, -ids.shape[1] :], self.cache)
        last = real.long().mul(torch.arange(1, ids.shape[1] + 1, device=ids.device)).argmax(1)
        here = hidden[torch.arange(len(hidden), device=ids.device), last]
        self.hidden = torch.where(real.any(1, keepdim=True), here, self.hidden)
        return hidden
