"""How a model may be read: what of padding, caches and masks leaves its numbers as they are. Asked of the model itself.

In: a model. Out: its `Way`, found once by reading a few short rows in every manner and comparing each with the rows read
alone; whatever fails is not done with this model. A row alone, without padding and without a cache, is the truth.

Right padding needs no verdict: no causal model sees what comes later. Windows are longer than what is tried, so they are
read from the configuration: a window counts columns, and padding inside a row would use them up.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel, cache_utils

from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.padding import left_pad
from steer_heal_love.ground.parts import body

START, OWN, TAIL = 6, (9, 2, 14), 4
"""tokens that all tried rows begin with, that each goes on with, and that each is then given one by one"""
CLOSE, COARSE, COARSEST = 2e-4, 0.05, 0.25
"""largest relative distance of two readings that are still one: in fp32, and below it the least and the most, between
which it is `TIMES` what rounding makes of this very model"""
TIMES = 3
FAILS = (
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,
    AssertionError,
)
"""what a model may answer to a reading that it can't do"""
WINDOW = re.compile(r"(sliding_|attention_)?window(_size)?|sliding_window_size|attention_chunk_size")
LAYERS = ("DynamicLayer", "DynamicSlidingWindowLayer", "DynamicIndexedLayer", "DummyLayer")
PLAIN = tuple(getattr(cache_utils, name) for name in LAYERS if hasattr(cache_utils, name))
"""layers of a cache that hold a column a token, so that a mask says all there is to say of padding"""


@dataclass(frozen=True)
class Way:
    """Up to how many columns a batch may be wide for each manner of reading it; 0 where never, infinite where always.

    `beside`: rows of unlike length, padded on the right; beyond it, a row's positions depend on its neighbours.
    `inside`: padding after what all rows begin with, which is read once, and masks that are trees.
    `front`: padding in front of everything. `cached`: rows of equal length that go on from a cache.
    `rows`: rows may be taken out of a cache. A row read whole and alone is always right.
    """

    beside: float = 0
    inside: float = 0
    front: float = 0
    cached: float = 0
    rows: bool = False

    def manner(self, columns: int) -> Literal["inside", "front", "equal", "again"]:
        """How rows that will be so many columns wide are decoded: the quickest that is right; `again`: without a cache."""
        if columns <= self.inside:
            return "inside"
        if columns <= self.front:
            return "front"
        return "equal" if columns <= self.cached else "again"


_known: WeakKeyDictionary[nn.Module, Way] = WeakKeyDictionary()
_rounding: WeakKeyDictionary[nn.Module, float] = WeakKeyDictionary()


def way(model: PreTrainedModel) -> Way:
    """The model's way, tried on the first call and kept."""
    if model not in _known:
        _known[model] = tried(model)
    return _known[model]


def forget(model: PreTrainedModel) -> None:
    """Let the model's way be tried again when it is next asked for."""
    _known.pop(model, None)


def forward(
    model: PreTrainedModel,
    ids: Int[Tensor, "b s"],
    mask: Tensor | None = None,
    places: Int[Tensor, "b s"] | None = None,
    cache: Any = None,
    *,
    use_cache: bool = True,
) -> tuple[Float[Tensor, "b s d"], Any]:
    """Final hidden states over `ids` and the cache that goes on from them; each argument under the model's name for it.

    No mask means that every row is real from end to end.
    """
    if use_cache and cache is None:
        cache = blank(model)
    out = body(model)(**arguments(model, ids, mask, places, cache), use_cache=use_cache)
    return out.last_hidden_state, cache if cache is not None else getattr(out, slot(model), None)


def arguments(
    model: PreTrainedModel,
    ids: Int[Tensor, "b s"],
    mask: Tensor | None = None,
    places: Int[Tensor, "b s"] | None = None,
    cache: Any = None,
) -> dict[str, Any]:
    """What a decoder is called with: each under the name that it has there, none that it doesn't take."""
    known = takes(type(body(model)))  # type: ignore[arg-type]
    given = {"attention_mask": mask, "position_ids": places, slot(model): cache}
    return {"input_ids": ids} | {n: v for n, v in given.items() if v is not None and n in known}


def slot(model: PreTrainedModel) -> str:
    """The name under which a decoder takes its cache and gives it back."""
    return "cache_params" if "cache_params" in takes(type(body(model))) else "past_key_values"  # type: ignore[arg-type]


@lru_cache(maxsize=64)
def takes(kind: type[nn.Module]) -> frozenset[str]:
    """The names of what a decoder's forward takes."""
    return frozenset(inspect.signature(kind.forward).parameters)


def blank(model: PreTrainedModel) -> DynamicCache | None:
    """An empty cache; none where the library says that the model makes one of its own kind."""
    if not model._supports_default_dynamic_cache():
        return None
    return DynamicCache(config=model.config.get_text_config(decoder=True))


def limits(model: PreTrainedModel) -> tuple[float, float]:
    """`closing` of a model."""
    return closing(model.config.get_text_config(decoder=True))


def closing(text: PreTrainedConfig) -> tuple[float, float]:
    """Columns up to which no window of the configuration closes, and up to which a row is read alike beside longer ones:
    rotary positions may change with the longest row, and a choice of the likeliest keys has ties. Infinite where none."""
    config = text.to_dict()
    number = lambda found: min((v for v in found if isinstance(v, int) and v > 0), default=math.inf)
    ropes = [config.get("rope_parameters") or {}]
    ropes += [v for v in ropes[0].values() if isinstance(v, dict)]
    moving = [r for r in ropes if r.get("rope_type") in ("longrope", "dynamic")]
    known = [
        r.get("original_max_position_embeddings") or config.get("original_max_position_embeddings")
        for r in moving
    ]
    return (
        number(v for k, v in config.items() if WINDOW.fullmatch(k)),
        number([config.get("index_topk"), *(k or config.get("max_position_embeddings") for k in known)]),
    )


def widest(model: PreTrainedModel) -> Way:
    """The way of a model that passes every trial: no limits but those of its configuration."""
    window, reach = limits(model)
    return Way(beside=reach, inside=min(window, reach), front=reach, cached=reach, rows=True)


@torch.no_grad()
def tried(model: PreTrainedModel) -> Way:
    """A model's way, by trial. Raises `UserError` where rows can't even be read beside each other."""
    trial = Trial(model)
    if not passes(trial.beside):
        raise UserError(
            f"{type(model).__name__}: a prompt gives other numbers beside a longer one than alone, or can't be read "
            "from token ids; nothing could be computed with this architecture."
        )
    most = widest(model)
    inside = trial.plain() and passes(trial.inside) and passes(trial.tree)
    cached = inside or passes(trial.equal)
    front = inside or (cached and passes(trial.front))
    return Way(
        beside=most.beside,
        inside=most.inside if inside else 0,
        front=most.front if front else 0,
        cached=most.cached if cached else 0,
        rows=inside or (cached and passes(partial(trial.equal, chosen=True))),
    )


def passes(reading: Callable[[], bool]) -> bool:
    """Whether a reading can be done, and gives what each row gives alone."""
    try:
        return reading()
    except FAILS:
        return False


class Trial:
    """Rows that begin alike and go on with unlike numbers of tokens, and their hidden states when each is read alone."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        draw = torch.Generator().manual_seed(0)
        top = model.config.get_text_config(decoder=True).vocab_size
        row = lambda n: tuple(torch.randint(1, top, (n,), generator=draw).tolist())
        start = row(START)
        self.rows = [start + row(n) for n in OWN]
        self.tails = [row(TAIL) for _ in OWN]
        self.read_alone: dict[tuple[int, ...], Tensor] = {}

    def alone(self, ids: tuple[int, ...]) -> Float[Tensor, "s d"]:
        if ids not in self.read_alone:
            self.read_alone[ids] = forward(self.model, self.tensor([ids]), use_cache=False)[0][0].float()
        return self.read_alone[ids]

    def tensor(self, values: list[Any]) -> Tensor:
        return torch.tensor(values, device=self.model.device)

    def close(self, found: Float[Tensor, "s d"], truth: Float[Tensor, "s d"]) -> bool:
        gap = (found.float() - truth).norm(dim=-1) / truth.norm(dim=-1)
        return bool((gap <= closeness(self.model)).all())

    def plain(self) -> bool:
        """Whether every layer's cache holds columns alone."""
        cache = blank(self.model)
        return cache is not None and all(isinstance(layer, PLAIN) for layer in cache.layers)

    def beside(self) -> bool:
        """Rows of unlike length in one batch, padded on the right."""
        width = max(map(len, self.rows))
        ids = self.tensor([r + (0,) * (width - len(r)) for r in self.rows])
        mask = self.tensor([(1,) * len(r) + (0,) * (width - len(r)) for r in self.rows])
        hidden, _ = forward(self.model, ids, mask, use_cache=False)
        return all(self.close(h[: len(r)], self.alone(r)) for h, r in zip(hidden, self.rows, strict=True))

    def begun(self) -> Any:
        """The cache of what all rows begin with, once a row."""
        _, cache = forward(self.model, self.tensor([self.rows[0][:START]]))
        select(cache, self.tensor([0] * len(self.rows)))
        return cache

    def inside(self) -> bool:
        """What all begin with read once, and padding after it."""
        return self.goes_on([r[START:] for r in self.rows], self.begun(), START, chosen=True)

    def front(self) -> bool:
        """Padding in front of everything."""
        return self.goes_on(self.rows)

    def equal(self, *, chosen: bool = False) -> bool:
        """Rows of one length, of which a part may go on."""
        return self.goes_on([r[: len(min(self.rows, key=len))] for r in self.rows], chosen=chosen)

    def goes_on(
        self, rows: list[tuple[int, ...]], cache: Any = None, before: int = 0, *, chosen: bool = False
    ) -> bool:
        """Rows padded on the left after `before` columns of a cache, then token by token; `chosen`: two of them, swapped."""
        tails, start, even = self.tails, self.rows[0][:before], len(set(map(len, rows))) == 1
        ids, mask = left_pad(rows, self.model.device)
        mask = torch.cat([mask.new_ones(len(mask), before), mask], 1)
        hidden, cache = forward(self.model, ids, None if even else mask, positions(mask)[:, before:], cache)
        right = [self.close(h[-1:], self.alone(start + r)[-1:]) for h, r in zip(hidden, rows, strict=True)]
        for i in range(TAIL):
            if chosen and i == 1:
                select(cache, keep := self.tensor([2, 0]))
                mask, rows, tails = mask[keep], [rows[2], rows[0]], [tails[2], tails[0]]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            ids = self.tensor([t[i : i + 1] for t in tails])
            hidden, cache = forward(self.model, ids, None if even else mask, positions(mask)[:, -1:], cache)
            whole = [start + r + t for r, t in zip(rows, tails, strict=True)]
            at = [len(w) - TAIL + i for w in whole]
            right += [
                self.close(h, self.alone(w)[j : j + 1]) for h, w, j in zip(hidden, whole, at, strict=True)
            ]
        return all(right)

    def tree(self) -> bool:
        """Two branches after one row, kept apart by the mask alone."""
        own, branches = self.rows[0][START:], self.tails[:2]
        ids = own + branches[0] + branches[1]
        n, whole = len(own), START + len(ids)
        sees = torch.ones(whole, whole, dtype=torch.bool).tril()
        sees[START + n + TAIL :, START + n : START + n + TAIL] = False
        mask = torch.zeros(sees.shape, dtype=self.model.dtype).masked_fill(
            ~sees, torch.finfo(self.model.dtype).min
        )
        places = [START + i for i in range(n)] + 2 * [START + n + i for i in range(TAIL)]
        cache = self.begun()
        select(cache, self.tensor([0]))
        hidden, _ = forward(
            self.model,
            self.tensor([ids]),
            mask[None, None, START:].to(self.model.device),
            self.tensor([tuple(places)]),
            cache,
        )
        found = [hidden[0, n : n + TAIL], hidden[0, n + TAIL :]]
        return all(
            self.close(f, self.alone(self.rows[0] + b)[-TAIL:]) for f, b in zip(found, branches, strict=True)
        )


def closeness(model: PreTrainedModel) -> float:
    """The largest relative distance at which two readings of this model are one."""
    if torch.finfo(model.dtype).bits >= 32:
        return CLOSE
    if model not in _rounding:
        _rounding[model] = rounding(model)
    return min(max(COARSE, TIMES * _rounding[model]), COARSEST)


@torch.no_grad()
def rounding(model: PreTrainedModel) -> float:
    """How far a row's final states move, relatively, when its embeddings move by a rounding error of the model's type.

    A deep or wide model makes more of it than a small one: a fixed bound would take its rounding for a fault. 0 where the
    model can't be asked.
    """
    draw = torch.Generator().manual_seed(0)
    top = model.config.get_text_config(decoder=True).vocab_size
    ids = torch.randint(1, top, (1, 16), generator=draw).to(model.device)

    def moved(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        noise = torch.randn(output.shape, generator=draw) * torch.finfo(output.dtype).eps / 4
        return (output.float() * (1 + noise.to(output.device))).to(output.dtype)

    try:
        plain = forward(model, ids, use_cache=False)[0].float()
        hook = model.get_input_embeddings().register_forward_hook(moved)
        try:
            found = forward(model, ids, use_cache=False)[0].float()
        finally:
            hook.remove()
    except FAILS:
        return 0.0
    gap = ((found - plain).norm(dim=-1) / plain.norm(dim=-1)).max().item()
    return gap if math.isfinite(gap) else 0.0


def select(cache: Any, rows: Int[Tensor, " b"]) -> None:
    """These rows of a cache, in this order, in place; a row may be named more than once."""
    cache.reorder_cache(rows)


def positions(mask: Int[Tensor, "b s"]) -> Int[Tensor, "b s"]:
    """Position ids that count real tokens only, so that left padding changes nothing."""
    return (mask.cumsum(-1) - 1).clamp_min(0)
