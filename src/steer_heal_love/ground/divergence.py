"""How far two distributions of the next token are apart, and how wide one is: per token, in nats, from whole rows of logits.
Each logit may come in a narrow type, and is widened to fp32 as it is read.

A divergence of equal logits is 0, and none is ever below.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from steer_heal_love.ground.vocabulary import kernels, widened


class _ForwardKL(torch.autograd.Function):
    """KL(p‖q) of two rows of logits and, where they are asked for, its gradients by either, written down:

        ∂/∂student = q − p,    ∂/∂reference = p · (log p − log q − KL).

    Autograd would keep several tensors of tokens × vocabulary and go over each of them again.
    """

    @staticmethod
    def forward(ctx, reference, student):  # type: ignore[override]
        by_reference, by_student = ctx.needs_input_grad[:2]
        if fused := kernels(reference, student):
            kl, *grads = fused.forward_kl(
                reference, student, by_reference=by_reference, by_student=by_student
            )
            ctx.save_for_backward(*grads)
            return kl
        wide = torch.promote_types(torch.promote_types(reference.dtype, student.dtype), torch.float32)
        log_p, log_q = (torch.log_softmax(logits, -1, dtype=wide) for logits in (reference, student))
        p, apart = log_p.exp(), log_p.sub_(log_q)
        apart.masked_fill_(p == 0, 0.0)
        kl = torch.linalg.vecdot(p, apart)
        ctx.save_for_backward(
            (p * apart.sub_(kl.unsqueeze(-1))).to(reference.dtype) if by_reference else None,
            log_q.exp_().sub_(p).to(student.dtype) if by_student else None,
        )
        return kl.clamp(min=0.0)

    @staticmethod
    def backward(ctx, upstream):  # type: ignore[override]
        return tuple(None if g is None else upstream.to(g.dtype).unsqueeze(-1) * g for g in ctx.saved_tensors)


def forward_kl(reference: Float[Tensor, "t v"], student: Float[Tensor, "t v"]) -> Float[Tensor, " t"]:
    """KL(reference‖student) per token, in nats, from logits; never below 0, where rounding alone would put it.

    A token that the reference rules out (a logit of −∞) adds nothing.
    """
    return _ForwardKL.apply(reference, student)  # type: ignore[no-any-return]


def entropy(logits: Float[Tensor, "t v"]) -> Float[Tensor, " t"]:
    """Entropy of the next token's distribution, in nats."""
    log_p = widened(logits).log_softmax(-1)
    return -(log_p.exp() * log_p.masked_fill(log_p.isneginf(), 0.0)).sum(-1)


def reverse_kl(reference: Float[Tensor, "t v"], student: Float[Tensor, "t v"]) -> Float[Tensor, " t"]:
    """KL(student‖reference) per token, in nats, from logits."""
    return forward_kl(student, reference)
