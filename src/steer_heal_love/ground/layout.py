"""Where prompts and their answers lie in a batch that is read once: answers as branches, several prompts to a row.

In: prompts, and the answers of each as a tree. Out: ids, positions and an additive mask by which a token sees its own
prompt and its own answer's earlier tokens alone, and the place that each answer token is predicted from. What follows
nothing (an answer's last token) isn't read, an answer's prompt is read once however many answers it has, and rows are
filled up with other prompts, so that little of what is computed is padding.

Invariant: every answer is read as it would be alone. That needs a model that heeds such a mask (`reading.Way.inside`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from steer_heal_love.ground.devices import sent

STEP, WIDEST = 8, 192
"""widths that are tried: multiples of the one, up to the other or the longest piece"""
FAR = 1_500
"""columns at which attention over a row costs as much as its linear layers; of small models, on a processor"""


@dataclass(frozen=True)
class Tree:
    """Several answers with what they begin alike stored once. `parents` point at earlier nodes, −1 at the prompt."""

    ids: list[int]
    parents: list[int]
    paths: list[list[int]]

    @classmethod
    def of(cls, answers: list[tuple[int, ...]]) -> Tree:
        known: dict[tuple[int, int], int] = {}
        paths = []
        for answer in answers:
            path, at = [], -1
            for token in answer:
                at = known.setdefault((at, token), len(known))
                path.append(at)
            paths.append(path)
        return cls([token for _, token in known], [parent for parent, _ in known], paths)

    def means(self, values: Float[Tensor, " n"]) -> list[float]:
        """Each answer's mean of what its nodes have."""
        if not self.paths:
            return []
        along = values[[i for path in self.paths for i in path]].double()
        lengths = torch.tensor([len(path) for path in self.paths])
        return torch.segment_reduce(along, "mean", lengths=lengths).tolist()  # type: ignore[no-any-return]

    def inner(self) -> list[int]:
        """Nodes that something follows: the only ones a model has to read."""
        return sorted(set(self.parents) - {-1})


@dataclass(frozen=True)
class Layout:
    """A batch to read. `where`: for each tree the place, in the flattened batch, that each of its nodes is predicted from."""

    ids: Int[Tensor, "b s"]
    places: Int[Tensor, "b s"]
    mask: Float[Tensor, "b 1 s k"]
    where: list[Int[Tensor, " _"]]

    def to(self, device: torch.device) -> Layout:
        ids, places, mask, where = (
            sent(t, device) for t in (self.ids, self.places, self.mask, torch.cat(self.where))
        )
        return Layout(ids, places, mask, list(where.split([len(w) for w in self.where])))


def rows(sizes: list[int], most: float = WIDEST) -> list[list[int]]:
    """Which pieces share a row of at most `most` columns: the longest first, each into the first row with room, at the
    width that costs least. Each has a row of its own where the longest has more columns than that."""
    order = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    longest = sizes[order[0]]
    if longest > most:
        return [[i] for i in range(len(sizes))]
    best: tuple[float, list[list[int]]] | None = None
    for width in range(longest, max(longest, int(min(WIDEST, most))) + 1, STEP):
        found: list[list[int]] = []
        room: list[int] = []
        for i in order:
            at = next((r for r, left in enumerate(room) if left >= sizes[i]), len(room))
            if at == len(room):
                found.append([])
                room.append(width)
            found[at].append(i)
            room[at] -= sizes[i]
        used = width - min(room)
        cost = len(found) * used * (1 + used / FAR)
        if best is None or cost < best[0]:
            best = cost, found
    assert best is not None
    return best[1]


def lay(
    prompts: list[tuple[int, ...]],
    trees: list[Tree],
    dtype: torch.dtype,
    *,
    before: int = 0,
    most: float = WIDEST,
) -> Layout:
    """The batch; `before`: how many columns of a cache all rows go on from, `most`: how many a row may add to them where
    prompts share it. Every prompt has a token of its own."""
    inner = [t.inner() for t in trees]
    chosen = rows([len(p) + len(nodes) for p, nodes in zip(prompts, inner, strict=True)], most)
    width = max(sum(len(prompts[i]) + len(inner[i]) for i in row) for row in chosen)
    ids: np.ndarray = np.zeros((len(chosen), width), np.int64)
    sees: np.ndarray = np.zeros((len(chosen), width, width), bool)
    places = ids.copy()
    where: list[Tensor] = [torch.empty(0)] * len(prompts)
    for r, row in enumerate(chosen):
        start = 0
        for i in row:
            tree, end = trees[i], start + len(prompts[i])
            column = {-1: end - 1} | {node: end + k for k, node in enumerate(inner[i])}
            last = end + len(inner[i])
            ids[r, start:last] = [*prompts[i], *(tree.ids[n] for n in inner[i])]
            places[r, start:end] = before + np.arange(end - start)
            sees[r, start:end, start:end] = np.tri(end - start, dtype=bool)
            for node in inner[i]:
                at, above = column[node], column[tree.parents[node]]
                sees[r, at] = sees[r, above]
                sees[r, at, at] = True
                places[r, at] = places[r, above] + 1
            where[i] = torch.tensor([column[p] for p in tree.parents], dtype=torch.long) + r * width
            start = last
    mask = torch.zeros(len(chosen), width, before + width, dtype=dtype)
    mask[:, :, before:].masked_fill_(~torch.from_numpy(sees), torch.finfo(dtype).min)
    return Layout(torch.from_numpy(ids), torch.from_numpy(places), mask.unsqueeze(1), where)
