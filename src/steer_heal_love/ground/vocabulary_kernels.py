"""Sums over a vocabulary as Triton kernels, for a CUDA device: each logit is read in the type that it has, and widened there.

One program a row walks along the vocabulary with a running maximum and sum in each lane, all in fp32, so that no copy of the
logits is made. Triton launches on the current device, so that of the logits is made current. `ground.vocabulary` says when they
are used.
"""

from __future__ import annotations

from subprocess import SubprocessError

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor
from triton.errors import TritonError

BLOCK, WARPS = 4096, 8
"""logits that a program reads at a time, and its warps"""
ERRORS = TritonError, OSError, SubprocessError
"""what building a kernel raises where the compiler is missing or broken"""
BELOW_ONE = tl.constexpr(1 - 2**-23)
NOWHERE = tl.constexpr(2**31 - 1)


@triton.jit
def _read(row, at, v):
    return tl.load(row + at, mask=at < v, other=float("-inf")).to(tl.float32)


@triton.jit
def _log_sum_exp(row, v, BLOCK: tl.constexpr):
    top = tl.full([BLOCK], float("-inf"), tl.float32)
    mass = tl.zeros([BLOCK], tl.float32)
    for start in range(0, v, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = _read(row, at, v)
        higher = tl.maximum(top, x)
        # A lane that has met nothing but -inf has no mass; -inf less itself would be no number.
        shift = tl.where(higher == float("-inf"), 0.0, higher)
        mass = mass * tl.exp(top - shift) + tl.exp(x - shift)
        top = higher
    most = tl.max(top, 0)
    return most + tl.log(tl.sum(mass * tl.exp(top - most), 0))


@triton.jit
def _nll(logits, targets, out, stride, v, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64)
    row = logits + i * stride
    total = _log_sum_exp(row, v, BLOCK)
    tl.store(out + i, total - tl.load(row + tl.load(targets + i)).to(tl.float32))


@triton.jit
def _forward_kl(
    reference,
    student,
    out,
    by_reference,
    by_student,
    reference_stride,
    student_stride,
    v,
    BLOCK: tl.constexpr,
    BY_REFERENCE: tl.constexpr,
    BY_STUDENT: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64)
    p_row, q_row = reference + i * reference_stride, student + i * student_stride
    p_total, q_total = _log_sum_exp(p_row, v, BLOCK), _log_sum_exp(q_row, v, BLOCK)
    parts = tl.zeros([BLOCK], tl.float32)
    for start in range(0, v, BLOCK):
        at = start + tl.arange(0, BLOCK)
        log_p = _read(p_row, at, v) - p_total
        log_q = _read(q_row, at, v) - q_total
        p = tl.exp(log_p)
        parts += tl.where(p == 0.0, 0.0, p * (log_p - log_q))
        if BY_STUDENT:
            tl.store(by_student + i * v + at, tl.exp(log_q) - p, mask=at < v)
    kl = tl.sum(parts, 0)
    # Where it is no number it stays none.
    tl.store(out + i, tl.where(kl < 0.0, 0.0, kl))
    if BY_REFERENCE:
        for start in range(0, v, BLOCK):
            at = start + tl.arange(0, BLOCK)
            log_p = _read(p_row, at, v) - p_total
            log_q = _read(q_row, at, v) - q_total
            p = tl.exp(log_p)
            apart = tl.where(p == 0.0, 0.0, log_p - log_q)
            tl.store(by_reference + i * v + at, p * (apart - kl), mask=at < v)


@triton.jit
def _odds(row, at, v, scale, top, min_p):
    x = _read(row, at, v)
    odds = tl.exp((x - top) * scale)
    return tl.where(odds < min_p, 0.0, odds)


@triton.jit
def _first_above(sums, odds, target, places):
    # Rounding may have put the target at the last sum or beyond, so it is kept below the largest.
    sums = tl.where(odds == 0.0, float("-inf"), sums)
    below = tl.max(sums, 0) * BELOW_ONE
    above = sums > tl.minimum(target, below)
    return tl.min(tl.where(above, places, NOWHERE), 0)


@triton.jit
def _drawn(logits, uniform, out, masses, stride, v, scale, min_p, BLOCK: tl.constexpr, BLOCKS: tl.constexpr):
    i = tl.program_id(0).to(tl.int64)
    row, mine = logits + i * stride, masses + i * BLOCKS
    top = tl.full([BLOCK], float("-inf"), tl.float32)
    for start in range(0, v, BLOCK):
        at = start + tl.arange(0, BLOCK)
        top = tl.maximum(top, _read(row, at, v))
    most = tl.max(top, 0)
    for block in range(BLOCKS):
        at = block * BLOCK + tl.arange(0, BLOCK)
        tl.store(mine + block, tl.sum(_odds(row, at, v, scale, most, min_p), 0))
    tl.debug_barrier()
    each = tl.arange(0, BLOCKS)
    mass = tl.load(mine + each)
    edges = tl.cumsum(mass, 0)
    target = tl.load(uniform + i) * tl.max(edges, 0)
    block = _first_above(edges, mass, target, each)
    block = tl.where(block < BLOCKS, block, 0)
    before = tl.sum(tl.where(each < block, mass, 0.0), 0)
    at = block * BLOCK + tl.arange(0, BLOCK)
    odds = _odds(row, at, v, scale, most, min_p)
    token = _first_above(tl.cumsum(odds, 0), odds, target - before, at)
    tl.store(out + i, tl.where(token < v, token, 0).to(tl.int64))


def drawn(
    logits: Float[Tensor, "b v"], uniform: Float[Tensor, " b"], temperature: float, min_p: float
) -> Int[Tensor, " b"]:
    """A token of each row: `ground.decode.choose`, at a temperature above 0."""
    logits, (rows, v) = logits.contiguous(), logits.shape
    blocks = triton.next_power_of_2(triton.cdiv(v, BLOCK))
    out = torch.empty(rows, dtype=torch.long, device=logits.device)
    masses = torch.empty(rows, blocks, dtype=torch.float32, device=logits.device)
    with torch.cuda.device_of(out):
        _drawn[(rows,)](
            logits,
            uniform.contiguous(),
            out,
            masses,
            logits.stride(0),
            v,
            1 / temperature,
            min_p,
            BLOCK=BLOCK,
            BLOCKS=blocks,
            num_warps=WARPS,
        )
    return out


def nll(logits: Float[Tensor, "t v"], targets: Int[Tensor, " t"]) -> Float[Tensor, " t"]:
    """−log p(target) of each row, in nats."""
    logits, (rows, v) = logits.contiguous(), logits.shape
    out = torch.empty(rows, dtype=torch.float32, device=logits.device)
    with torch.cuda.device_of(out):
        _nll[(rows,)](logits, targets.contiguous(), out, logits.stride(0), v, BLOCK=BLOCK, num_warps=WARPS)
    return out


def forward_kl(
    reference: Float[Tensor, "t v"],
    student: Float[Tensor, "t v"],
    *,
    by_reference: bool = False,
    by_student: bool = False,
) -> tuple[Float[Tensor, " t"], Float[Tensor, "t v"] | None, Float[Tensor, "t v"] | None]:
    """KL(reference‖student) of each row, in nats, and its gradients by either where they are asked for, in their types."""
    reference, student, (rows, v) = reference.contiguous(), student.contiguous(), student.shape
    out = torch.empty(rows, dtype=torch.float32, device=student.device)
    grads = [
        torch.empty_like(given) if wanted else None
        for given, wanted in ((reference, by_reference), (student, by_student))
    ]
    with torch.cuda.device_of(out):
        _forward_kl[(rows,)](
            reference,
            student,
            out,
            *(out if g is None else g for g in grads),
            reference.stride(0),
            student.stride(0),
            v,
            BLOCK=BLOCK,
            BY_REFERENCE=by_reference,
            BY_STUDENT=by_student,
            num_warps=WARPS,
        )
    return out, grads[0], grads[1]
