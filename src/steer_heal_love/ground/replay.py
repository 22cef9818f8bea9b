"""Steps of decoding; on a GPU without waiting for Python, which else takes many times as long as the kernels.

In: a cache, and each row's next token. Out: the tokens after it: one a row, or on a GPU up to `SPAN`. There the cache is
given room for that many, so that every step has the same shapes, one step is captured as a CUDA graph, and replayed;
the mask hides the room that is still empty. Afterwards the caller drops the rows that are known to have ended, and the next
span is captured at its own size, while the GPU is still at the last steps of this one.

Invariant: the tokens are those of single steps, up to the arithmetic of the hardware.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from steer_heal_love.ground import attention
from steer_heal_love.ground.devices import brought
from steer_heal_love.ground.memory import unclaimed_bytes
from steer_heal_love.ground.parts import body
from steer_heal_love.ground.reading import forward, positions
from steer_heal_love.ground.spread import is_spread

T = TypeVar("T")
Choose = Callable[[Tensor, Int[Tensor, " 1"]], Int[Tensor, " b"]]
Ended = Callable[[Int[Tensor, "b t"]], Bool[Tensor, " b"]]
Known = Callable[[], Bool[Tensor, " b"]]
SPAN = 128
"""tokens a row between two captures; what is captured reads the whole room, half of it empty on average"""
POLL = 8
"""steps between two looks at which rows have ended; what one saw is known at the next, so that nobody waits for it"""
_built: WeakKeyDictionary[nn.Module, set[tuple[bool, bool]]] = WeakKeyDictionary()
"""by model, the kinds of numbers of rows on which a step has run"""
STEP_BYTES = 4 << 30
"""more than a step's own tensors take: logits of some hundred rows, above all"""
MARGIN = 128
"""columns that a caller may add to the cache afterwards; a sliding window has to hold them too"""


class Room(DynamicLayer):
    """One layer's keys and values with room for more, written in place at column `at`."""

    def __init__(self, full: DynamicLayer, at: Int[Tensor, " 1"], span: int) -> None:
        super().__init__()
        self.keys, self.values = (nn.functional.pad(x, (0, 0, 0, span)) for x in (full.keys, full.values))
        self.at, self.dtype, self.device, self.is_initialized = at, full.dtype, full.device, True

    def filled(self, columns: int) -> DynamicLayer:
        """What is in it, as a layer that grows again."""
        layer = DynamicLayer()
        layer.keys, layer.values = self.keys[:, :, :columns], self.values[:, :, :columns]
        layer.dtype, layer.device, layer.is_initialized = self.dtype, self.device, True
        return layer

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        self.keys.index_copy_(2, self.at, key_states)
        self.values.index_copy_(2, self.at, value_states)
        return self.keys, self.values


def steps(
    model: PreTrainedModel,
    cache: DynamicCache,
    mask: Int[Tensor, "b s"],
    tokens: Int[Tensor, " b"],
    most: int,
    choose: Choose,
    ended: Ended,
    *,
    even: bool = False,
) -> tuple[Int[Tensor, "b t"], Known]:
    """Feed `tokens`, choose what comes next, and so on, 1 to `most` times; what was chosen. All but the last is fed. Besides,
    what tells on the host which rows are known to have ended: all that have, or on a GPU those seen up to 2·`POLL` steps ago,
    so that the next steps can be made ready while it is still at these.

    `mask`: which of the cache's columns are real. `choose(hidden, step)`: the next tokens, from final hidden states
    [b, d] and a step counted from 0; it may be captured, so it reads and writes tensors in place. `ended(chosen)`:
    which rows want nothing more. `even`: no row has any padding, so that no mask is needed.
    """
    if suits(model, cache, mask.shape[1] + most + MARGIN):
        return _span(model, cache, mask, tokens, min(SPAN, most), choose, ended)
    mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
    hidden, _ = forward(model, tokens.unsqueeze(1), None if even else mask, positions(mask)[:, -1:], cache)
    chosen = choose(hidden[:, -1], mask.new_zeros(1)).unsqueeze(1)
    return chosen, lambda: ended(chosen).cpu()


def known_at_once(ended: Bool[Tensor, " b"]) -> Bool[Tensor, " b"]:
    """Which rows the host knows to have ended without waiting for a GPU: there, none so far."""
    return ended if ended.device.type == "cpu" else torch.zeros(len(ended), dtype=torch.bool)


def suits(model: PreTrainedModel, cache: DynamicCache, width: int) -> bool:
    """Whether this model's steps can be replayed: on one CUDA device, attention that can be swapped, no window below `width`."""
    windows = [layer.sliding_window for layer in cache.layers if isinstance(layer, DynamicSlidingWindowLayer)]
    plain = all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers)
    swappable = getattr(model, "_supports_attention_backend", False)
    fits = bool(cache.layers) and plain and all(w > width for w in windows)
    one = model.device.type == "cuda" and not is_spread(model)
    return one and fits and swappable and attention.ours(model)


def _span(
    model: PreTrainedModel,
    cache: DynamicCache,
    mask: Int[Tensor, "b s"],
    tokens: Int[Tensor, " b"],
    span: int,
    choose: Choose,
    ended: Ended,
) -> tuple[Int[Tensor, "b t"], Known]:
    rows, width = mask.shape
    # Filled where they lie: a number that is sent would be waited for.
    at, step = mask.new_full((1,), width), mask.new_zeros(1)
    for i, layer in enumerate(cache.layers):
        cache.layers[i] = Room(layer, at, span)  # type: ignore[arg-type]
    sees = torch.full(
        (rows, 1, 1, width + span), torch.finfo(model.dtype).min, dtype=model.dtype, device=mask.device
    )
    sees[:, 0, 0, :width].masked_fill_(mask.bool(), 0)
    last, places = tokens.unsqueeze(1).clone(), mask.sum(1, keepdim=True)
    out = last.new_zeros(rows, span)

    def one_step() -> None:
        sees.index_fill_(3, at, 0)
        hidden = body(model)(
            input_ids=last, attention_mask=sees, position_ids=places, past_key_values=cache, use_cache=True
        ).last_hidden_state[:, -1]
        last.copy_(choose(hidden, step).unsqueeze(1))
        out.index_copy_(1, step, last)
        for counter in (at, step, places):
            counter.add_(1)

    asked, known = None, torch.zeros(rows, dtype=torch.bool)
    with attending(model, attention.FUSED):
        advance, done = recorded(one_step, model, rows) if span > 1 else (one_step, 0)
        while done < span:
            if done and done % POLL == 0:
                known = asked()[0] if asked else known
                if known.all():
                    break
                asked = brought([ended(out[:, :done])])
            advance()
            done += 1
    for i, layer in enumerate(cache.layers):
        cache.layers[i] = layer.filled(width + done)  # type: ignore[attr-defined]
    return out[:, :done], lambda: known


def recorded(step: Callable[[], None], model: PreTrainedModel, rows: int) -> tuple[Callable[[], None], int]:
    """`step` of a model on so many rows as a CUDA graph, and how often it ran meanwhile: once where kernels may have to be built
    first, which a capture can end by. Itself on other devices, or where it can't be captured."""
    if model.device.type != "cuda":
        return step, 0
    ran, built = 0, _built.setdefault(model, set())
    # Triton builds a kernel anew for 1 and for multiples of 16.
    if (kind := (rows == 1, rows % 16 == 0)) not in built:
        step()
        built.add(kind)
        ran = 1
    try:
        with torch.cuda.device(model.device):
            graph, _ = graphed(step, tidy=unclaimed_bytes() < STEP_BYTES)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as e:
        warnings.warn(f"decoding without CUDA graphs: {str(e).splitlines()[0]}", stacklevel=2)
        return step, ran
    return graph.replay, ran


def graphed(work: Callable[[], T], pool: Any = None, *, tidy: bool = True) -> tuple[torch.cuda.CUDAGraph, T]:
    """A CUDA graph of `work` on the current device, and what it gives, whose memory every replay fills again. `tidy`: memory
    that torch holds unused is given back first, since a graph can't take it from there; that waits for the GPU."""
    graph = torch.cuda.CUDAGraph()
    # Beside other processes a thread of NCCL's asks the device things that would end a capture of all threads.
    mode = "thread_local" if torch.distributed.is_initialized() else "global"
    before = torch.cuda.current_stream()
    try:
        with (torch.cuda.graph if tidy else Untidied)(graph, pool=pool, capture_error_mode=mode):
            found = work()
    except RuntimeError:
        # A capture that fails leaves its own stream current, which waits for nobody.
        torch.cuda.set_stream(before)
        torch.cuda.synchronize()
        raise
    return graph, found


class Untidied(torch.cuda.graph):
    """Torch's own capture, which neither waits for the GPU nor empties torch's caches first. A capture runs nothing, so there is
    nothing to wait for; and where memory is left, the graph's own pool takes it from the device."""

    def __enter__(self) -> None:
        self.stream_ctx.__enter__()
        self.cuda_graph.capture_begin(*self.pool, capture_error_mode=self.capture_error_mode)


@contextmanager
def attending(model: PreTrainedModel, implementation: str) -> Iterator[None]:
    """Another attention for a while: for one query a row, the library's copies of keys are most of the cost."""
    before = model.config._attn_implementation
    try:
        model.set_attn_implementation(implementation)
        yield
    finally:
        model.set_attn_implementation(before)
