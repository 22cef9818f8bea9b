"""What is read off whole rows of logits: by fused kernels on a CUDA device, elsewhere by torch.

Torch copies a row into fp32, and goes over that copy several times. The kernels read each logit once or twice in the type
that it has (`ground.vocabulary_kernels`), which is what a GPU spends most of such a reading on. They are tried once a device,
and used where they give torch's numbers.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from steer_heal_love.ground.reading import FAILS

TYPES = torch.float32, torch.bfloat16, torch.float16
"""what the kernels read; in wider types torch is exact to more digits than they are"""
NATS = 1e-4
"""how far a trial's numbers, of some ten nats, may be from torch's"""
LEFT_OUT = "kernels for the vocabulary left out: %s"
TEMPERATURE, MIN_P = 0.92, 0.01
"""of the trial's draw"""
log = logging.getLogger(__name__)


def kernels(*logits: Tensor) -> ModuleType | None:
    """What reads these logits fused; None where torch has to."""
    fused = all(each.is_cuda and each.dtype in TYPES for each in logits)
    return tried(logits[0].device) if fused else None


@lru_cache
def tried(device: torch.device) -> ModuleType | None:
    """The kernels, if they can be built here and give torch's numbers on this device."""
    try:
        from steer_heal_love.ground import vocabulary_kernels as kernels
    except ImportError as error:  # torch brings Triton along where there is one for the platform
        log.info(LEFT_OUT, error)
        return None
    try:
        with torch.cuda.device(device):
            good = agree(kernels, device)
    except (*FAILS, *kernels.ERRORS) as error:
        log.warning(LEFT_OUT, error)
        return None
    if not good:
        log.warning(LEFT_OUT, "they don't give torch's numbers")
    return kernels if good else None


@torch.no_grad()
def agree(kernels: ModuleType, device: torch.device | str) -> bool:
    """Whether NLL, divergence, its gradients and a draw are torch's, on rows of logits in bf16 and in fp32, of which one rules
    tokens out."""
    draw = torch.Generator().manual_seed(0)
    wide = [4 * torch.randn(3, 5003, generator=draw).to(device) for _ in range(2)]
    wide[0][0, :999] = -torch.inf
    return all(agree_on(kernels, *(logits.to(dtype) for logits in wide)) for dtype in TYPES[:2])


def agree_on(kernels: Any, p: Float[Tensor, "3 v"], q: Float[Tensor, "3 v"]) -> bool:
    """`agree` on these."""
    targets = torch.tensor([1000, 7, 5002], device=p.device)
    log_p, log_q = (log_softmax(logits.float(), -1) for logits in (p, q))
    expected = kl_div(log_q, log_p.clamp(min=-1e4), reduction="none", log_target=True).sum(-1)
    kl, by_reference, by_student = kernels.forward_kl(p, q, by_reference=True, by_student=True)
    apart = (log_p - log_q).masked_fill(log_p.isneginf(), 0.0)
    grain = 2 * torch.finfo(p.dtype).eps
    pairs = [
        (kernels.nll(p, targets), cross_entropy(p.float(), targets, reduction="none"), 0.0),
        (kl, expected, 0.0),
        (by_reference.float(), log_p.exp() * (apart - expected.unsqueeze(1)), grain),
        (by_student.float(), log_q.exp() - log_p.exp(), grain),
    ]
    uniform = torch.tensor([0.1, 0.5, 0.9], device=p.device)
    odds = ((p.float() - p.float().amax(-1, keepdim=True)) / TEMPERATURE).exp()
    sums = odds.masked_fill(odds < MIN_P, 0.0).cumsum(-1)
    first = (sums > uniform.unsqueeze(1) * sums[:, -1:]).int().argmax(-1)
    same = torch.equal(kernels.drawn(p, uniform, TEMPERATURE, MIN_P), first)
    return same and all(torch.allclose(a, b, rtol=rough, atol=NATS) for a, b, rough in pairs)


def nll(logits: Float[Tensor, "t v"], targets: Int[Tensor, " t"]) -> Float[Tensor, " t"]:
    """−log p(target) of each row, in nats, in fp32 at least."""
    differentiated = torch.is_grad_enabled() and logits.requires_grad
    if not differentiated and (fused := kernels(logits)):
        return fused.nll(logits, targets)  # type: ignore[no-any-return]
    return cross_entropy(widened(logits), targets, reduction="none")


def widened(logits: Float[Tensor, "t v"]) -> Float[Tensor, "t v"]:
    """In fp32, or in a wider type if they are."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
