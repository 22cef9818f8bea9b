"""Who else computes the same: processes that run one program on copies of one model, and share its rows out.

Every process of a team does every step, and so has every adapter, direction and context that the others have; none is
sent. Only functions that read or write many rows share them: each process takes every `size`-th row, in the order in
which rows are batched, and all get the results of all. Without a team each function here is the identity.

What travels is tensors, never pickled objects. Gradients, and whatever else is large, go from GPU to GPU; the rest, and
everything where there are none, from host to host.
Invariant: a row's result is what one process gives, up to the arithmetic of other batches.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from steer_heal_love.ground.devices import on_its_way
from steer_heal_love.ground.errors import UserError

KINDS = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool)
"""number types that travel, named by their place here"""
DIMENSIONS = 3
"""most that a tensor on its way may have"""
LARGE = 1 << 20
"""bytes from which a tensor on the host goes by way of the GPUs, which are linked ten times as fast as hosts"""
PIECE = 1 << 26
"""bytes of it on a GPU at a time"""
NAP_SECONDS = (1e-4, 1e-3, 1e-2)
"""how long to sleep between two looks whether others are done: at first, at most, and once a second has passed"""
GRACE_SECONDS = 2.0
"""how long a broken connection waits for the process behind it to count as ended"""
TIMEOUT = datetime.timedelta(hours=6)
"""after which a collective gives up; a process that died is seen at once"""


class Lost(UserError):
    """A process of the team is gone."""


@dataclass(frozen=True)
class Team:
    """This process's number among `size`; number 0 leads: it alone writes files that stay, and speaks."""

    rank: int = 0
    size: int = 1
    alive: Callable[[], None] = lambda: None
    """raises `Lost` when another process of the team has ended"""
    cuda: bool = False
    """whether its GPUs are linked to each other's"""


_team = Team()


def size() -> int:
    return _team.size


def rank() -> int:
    return _team.rank


def leads() -> bool:
    return _team.rank == 0


@contextmanager
def _as(team: Team) -> Iterator[None]:
    global _team
    before, _team = _team, team
    try:
        yield
    finally:
        _team = before


@contextmanager
def joined(
    rank: int, size: int, store: dist.Store, *, cuda: bool, alive: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Be process `rank` of `size` that meet at `store`. `cuda`: gradients are added up between GPUs."""
    backend = "cpu:gloo,cuda:nccl" if cuda and dist.is_nccl_available() else "gloo"
    try:
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    except RuntimeError as e:
        raise Lost(f"the processes of this run didn't find each other: {e}") from e
    whole = False
    try:
        with _as(Team(rank, size, alive, backend != "gloo")):
            yield
        whole = True
    finally:
        # After a failure GPUs may wait for a sum that never comes, and taking the group down would wait with them.
        if whole or backend == "gloo":
            dist.destroy_process_group()


def alone() -> AbstractContextManager[None]:
    """Inside, this process computes for itself."""
    return _as(Team())


@contextmanager
def sharing(order: Sequence[int]) -> Iterator[list[int]]:
    """This process's items of `order`; what is called inside shares nothing further."""
    mine = list(order[_team.rank :: _team.size])
    if _team.size == 1:
        yield mine
        return
    with alone():
        yield mine


def filled(out: list[Tensor], mine: list[int]) -> list[Tensor]:
    """`out` with every process's own items in their places, on the host. Raises `Lost`."""
    if _team.size == 1:
        return out
    out = [t.detach().cpu() for t in out]
    sent = _Parcel.of([out[i] for i in mine], mine)
    for parcel in _everyones(sent):
        for i, value in parcel.opened():
            out[i] = value
    return out


def answers(out: list[tuple[int, ...]], mine: list[int]) -> list[tuple[int, ...]]:
    """`filled`, for token ids."""
    if _team.size == 1:
        return out
    return [tuple(t.tolist()) for t in filled([torch.tensor(a, dtype=torch.long) for a in out], mine)]


def summed(values: dict[str, float], names: Sequence[str]) -> dict[str, float]:
    """The sum over all processes of each value, those that any of them has, in the order of `names`. Raises `Lost`."""
    if _team.size == 1:
        return values
    there = torch.tensor([[values.get(n, 0.0), float(n in values)] for n in names], dtype=torch.float64)
    _done(dist.all_reduce(there, async_op=True))
    return _present(there, names)


def add_up(
    parameters: Sequence[nn.Parameter | Tensor], values: dict[str, Float[Tensor, ""]], names: Sequence[str]
) -> Callable[[], dict[str, float]]:
    """Every parameter's gradient becomes its sum over all processes; one that has none counts as 0. Out: what gives the
    same of each value, as `summed` does; they travel along with the first parameter's device. GPUs are waited for only
    once this is called, so that the next work can be handed to them before. Raises `Lost` then.

    One flat buffer a device: many small messages would wait for each other. Wrapping the model for torch's own data
    parallel would buy nothing, since it is frozen: the factors are the only parameters, and hooks apply them.
    """
    sent: list[dist.Work] = []
    zero = torch.zeros((), device=parameters[0].device)
    there = torch.stack([f for n in names for f in (values.get(n, zero).to(zero), zero + (n in values))])
    for device in dict.fromkeys(p.device for p in parameters) if _team.size > 1 else ():
        each = [p for p in parameters if p.device == device]
        parts = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in each]
        parts += [there] if device == there.device else []
        flat = torch.cat(parts)
        work = dist.all_reduce(flat, async_op=True)
        if device.type == "cuda":
            work.wait()  # on the GPU: what is launched next comes after the sum
            sent.append(work)
        else:
            _done(work)
        sums = flat.split([len(part) for part in parts])
        for p, grad in zip(each, sums, strict=False):
            p.grad = grad.view_as(p)
        there = sums[-1] if device == there.device else there

    host = fetched(there)

    def known() -> dict[str, float]:
        for work in sent:
            _done(work)
        return _present(host().view(-1, 2), names)

    return known


def fetched(value: Tensor) -> Callable[[], Tensor]:
    """What gives `value` on the host. The copy is handed to the GPU now, so that to ask for it waits for what was launched
    before, and for nothing after. Raises `Lost` where another process ends meanwhile."""
    if not value.is_cuda:
        return lambda: value
    (here,), (copied,) = on_its_way([value])

    def asked() -> Tensor:
        _until(copied.query)
        return here

    return asked


def _present(there: Float[Tensor, "n 2"], names: Sequence[str]) -> dict[str, float]:
    """The values, by name, that any process has: a row is a sum and by how many it is given."""
    return {n: v for n, (v, k) in zip(names, there.tolist(), strict=True) if k}


def same_file(path: Path) -> None:
    """The leader's file at `path`, in place of whatever another process has there."""
    if _team.size == 1:
        return
    data = path.read_bytes() if leads() and path.is_file() else b""
    length = _from_leader(torch.tensor([len(data) if path.is_file() else -1]))
    if length.item() < 0:
        return
    mine = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
    content = _from_leader(mine if leads() else torch.empty(int(length), dtype=torch.uint8))
    if not leads():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.numpy().tobytes())


def same_folder(path: Path, *, without: Sequence[str] = ()) -> None:
    """The leader's folder at `path`, whose files a follower gets at its own `path`."""
    if _team.size == 1:
        return
    names = [
        str(p.relative_to(path)) for p in sorted(path.rglob("*")) if p.is_file() and p.name not in without
    ]
    text = "\n".join(names if leads() else []).encode()
    length = _from_leader(torch.tensor([len(text)]))
    told = (
        torch.frombuffer(bytearray(text), dtype=torch.uint8)
        if text
        else torch.empty(int(length), dtype=torch.uint8)
    )
    for name in _from_leader(told).numpy().tobytes().decode().splitlines():
        same_file(path / name)


def wait() -> None:
    """Until every process is here. Raises `Lost`."""
    summed({}, ["here"])


@dataclass(frozen=True)
class _Parcel:
    """Tensors of one number type on their way: a row of `head` each (place, type, dimensions, shape), all their bytes."""

    head: Tensor
    data: Tensor

    @classmethod
    def of(cls, tensors: list[Tensor], places: list[int]) -> _Parcel:
        rows = [
            [i, KINDS.index(t.dtype), t.dim(), *t.shape, *[1] * (DIMENSIONS - t.dim())]
            for i, t in zip(places, tensors, strict=True)
        ]
        head = torch.tensor(rows, dtype=torch.long).reshape(-1, 3 + DIMENSIONS)
        parts = [t.contiguous().reshape(-1).view(torch.uint8) for t in tensors if t.numel()]
        return cls(head, torch.cat(parts) if parts else torch.empty(0, dtype=torch.uint8))

    def opened(self) -> Iterator[tuple[int, Tensor]]:
        at = 0
        for i, kind, dimensions, *shape in self.head.tolist():
            dtype, n = KINDS[kind], 1
            for width in shape:
                n *= width
            part = self.data[at : at + n * dtype.itemsize]
            at += len(part)
            # A copy of its own: a part's bytes may begin anywhere, and a number's may not.
            yield i, part.clone().view(dtype).reshape(shape[:dimensions])


def _everyones(mine: _Parcel) -> Iterator[_Parcel]:
    """Every process's parcel, this one's own left out."""
    sizes = [torch.zeros(2, dtype=torch.long) for _ in range(_team.size)]
    _done(dist.all_gather(sizes, torch.tensor([len(mine.head), len(mine.data)]), async_op=True))
    for rank, (rows, length) in enumerate(torch.stack(sizes).tolist()):
        own = rank == _team.rank
        head = mine.head if own else torch.empty(rows, 3 + DIMENSIONS, dtype=torch.long)
        data = mine.data if own else torch.empty(length, dtype=torch.uint8)
        for part in (head, data):
            _broadcast(part, rank)
        if not own:
            yield _Parcel(head, data)


def _from_leader(value: Tensor) -> Tensor:
    _broadcast(value, 0)
    return value


def _broadcast(value: Tensor, by: int) -> None:
    """Process `by`'s tensor, on the host, into everyone's of the same shape."""
    if not value.numel():
        return
    if not (_team.cuda and value.nbytes >= LARGE):
        _done(dist.broadcast(value, src=by, async_op=True))
        return
    for piece in value.view(-1).split(max(PIECE // value.itemsize, 1)):
        here = piece.cuda() if by == _team.rank else torch.empty_like(piece, device="cuda")
        _done(dist.broadcast(here, src=by, async_op=True))
        if by != _team.rank:
            piece.copy_(here)


def _until(over: Callable[[], bool]) -> None:
    """Ask again and again, with naps, and whether the other processes live."""
    start, (nap, most, later) = time.monotonic(), NAP_SECONDS
    while not over():
        time.sleep(nap)
        nap = min(2 * nap, most if time.monotonic() < start + 1 else later)
        _team.alive()


def _done(work: dist.Work) -> None:
    """Wait as a process that can be interrupted, and that looks meanwhile whether the others live."""
    try:
        _until(work.is_completed)
        work.wait()
    except RuntimeError as e:
        # A connection breaks a moment before the process that held it counts as ended, and only then is it known how.
        until = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < until:
            _team.alive()
            time.sleep(0.05)
        raise Lost(f"a process of this run's team is gone: {str(e).splitlines()[0]}") from e
