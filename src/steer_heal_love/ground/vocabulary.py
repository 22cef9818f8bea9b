"""What is read off whole rows of logits: by fused kernels on a CUDA device, elsewhere by torch.

Torch copies a row into fp32, and goes over that copy several times. The kernels read each logit once or twice in the type
that it has (`ground.vocabulary_kernels`), which is what a GPU spends most of such a reading on. They are tried once a device,
and used where they give torch's numbers.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from types import ModuleType

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
log = logging.getLogger(__name__)


def kernels(*logits: Tensor) -> ModuleType | None:
    """What reads these logits fused; None where torch has to."""
    fused = all(each.is_cuda and each.dtype in TYPES for each in logits)
    return tried(logits[0].device) if fused else None


@lru_cache
def tried(device: torch.device) -> ModuleType | None:
    """The kernels, if they can be built here and give torch's numbers on this device."""
    try:
        from steer_heal_love.ground import vocabulary_kernels as found
    except ImportError as error:
        log.warning(LEFT_OUT, error)
        return None
    try:
        with torch.cuda.device(device):
            good = agree(found, device)
    except (*FAILS, *found.ERRORS) as error:
        log.warning(LEFT_OUT, error)
        return None
    if not good:
        log.warning(LEFT_OUT, "they don't give torch's numbers")
    return found if good else None


@torch.no_grad()
def agree(found: ModuleType, device: torch.device | str) -> bool:
    """Whether NLL, divergence, its gradient and a draw are torch's on some rows of logits, one of which rules tokens out."""
    draw = torch.Generator().manual_seed(0)
    p, q = (4 * torch.randn(3, 5003, generator=draw).to(device) for _ in range(2))
    p[0, :999] = -torch.inf
    targets = torch.tensor([1000, 7, 5002], device=device)
    log_p, log_q = log_softmax(p, -1), log_softmax(q, -1)
    kl, _, by_student = found.forward_kl(p, q, by_student=True)
    pairs = [
        (found.nll(p, targets), cross_entropy(p, targets, reduction="none")),
        (kl, kl_div(log_q, log_p.clamp(min=-1e4), reduction="none", log_target=True).sum(-1)),
        (by_student, log_q.exp() - log_p.exp()),
    ]
    uniform = torch.tensor([0.1, 0.5, 0.9], device=device)
    sums = log_p.exp().cumsum(-1)
    first = (sums > uniform.unsqueeze(1)).int().argmax(-1)
    if not torch.equal(found.drawn(p, uniform, 1.0, 0.0), first):
        return False
    return all(torch.allclose(a, b, rtol=0.0, atol=NATS) for a, b in pairs)


def nll(logits: Float[Tensor, "t v"], targets: Int[Tensor, " t"]) -> Float[Tensor, " t"]:
    """−log p(target) of each row, in nats, in fp32 at least."""
    differentiated = torch.is_grad_enabled() and logits.requires_grad
    if not differentiated and (fused := kernels(logits)):
        return fused.nll(logits, targets)  # type: ignore[no-any-return]
    return cross_entropy(widened(logits), targets, reduction="none")


def widened(logits: Float[Tensor, "t v"]) -> Float[Tensor, "t v"]:
    """In fp32, or in a wider type if they are."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
