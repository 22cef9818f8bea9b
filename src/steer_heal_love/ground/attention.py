"""Attention without the copies that transformers' own makes: of every key and value, to each query head of its group.

`grouped` puts the heads of a group side by side, as rows of one product: what a CPU wants. `fused` has the GPU's own
kernel read the groups in place: what a GPU wants when each row asks with one token.
Invariant: the numbers are the library's, up to the order of their sums.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.backends.cuda import SDPAParams, can_use_cudnn_attention
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask

NAME, FUSED = "grouped", "grouped_fused"
OTHER = ("softcap", "s_aux", "head_mask")
"""what some architectures' attention does besides; theirs is left to do it"""


def grouped(
    module: nn.Module,
    query: Float[Tensor, "b h q d"],
    key: Float[Tensor, "b g k d"],
    value: Float[Tensor, "b g k d"],
    attention_mask: Float[Tensor, "b 1 q k"] | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Float[Tensor, "b q h d"], Tensor | None]:
    """softmax(q kᵀ·scaling + mask) v, the h/g heads of a group as rows of one product."""
    if does_more(kwargs):
        plain = sys.modules[type(module).__module__].eager_attention_forward
        return plain(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs)  # type: ignore[no-any-return]
    b, heads, q, d = query.shape
    groups, k = key.shape[1:3]
    weights = torch.matmul(query.reshape(b, groups, -1, d), key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        weights = (weights.view(b, heads, q, k) + attention_mask).view(weights.shape)
    weights = nn.functional.softmax(weights, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).reshape(b, heads, q, -1).transpose(1, 2).contiguous(), None


def fused(
    module: nn.Module,
    query: Float[Tensor, "b h q d"],
    key: Float[Tensor, "b g k d"],
    value: Float[Tensor, "b g k d"],
    attention_mask: Float[Tensor, "b 1 q k"] | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Float[Tensor, "b q h d"], Tensor | None]:
    """As `grouped`, by the one kernel that takes groups and a mask together, where it takes this shape."""
    if does_more(kwargs) or not cudnn_takes(query, key, value, attention_mask, dropout):
        return grouped(module, query, key, value, attention_mask, scaling, dropout, **kwargs)
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        found = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling, enable_gqa=True
        )
    return found.transpose(1, 2).contiguous(), None


def cudnn_takes(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> bool:
    """Whether cuDNN takes this shape; a build for CUDA without a GPU can't be asked."""
    return query.is_cuda and can_use_cudnn_attention(
        SDPAParams(query, key, value, mask, dropout, False, True)
    )


def does_more(kwargs: dict[str, Any]) -> bool:
    return any(kwargs.get(name) is not None for name in OTHER)


for name, attend in ((NAME, grouped), (FUSED, fused)):
    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, eager_mask)
