"""Attention without the copies that transformers' own makes: of every key and value, to each query head of its group.

`grouped` puts the heads of a group side by side, as rows of one product: what a CPU wants. `fused` has the GPU's own
kernel read the groups in place: what a GPU wants when each row asks with one token.
Invariant: the numbers are the library's, up to the order of their sums.
"""

from __future__ import annotations

import sys
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.backends.cuda import SDPAParams, can_use_cudnn_attention
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from steer_heal_love.ground.padding import left_pad
from steer_heal_love.ground.reading import FAILS, closeness, forward, positions

NAME, FUSED = "grouped", "grouped_fused"
NAMES = """is_causal position_ids cache_position use_cache output_attentions output_hidden_states output_router_logits
    return_dict sliding_window position_embeddings deterministic target_dtype num_items_in_batch logits_to_keep
    past_key_values"""
KNOWN = frozenset(NAMES.split())
"""what is passed on to attention and changes nothing in it, or what the mask says already; with anything else an
architecture's attention does more, and its own is left to do it"""
_met: set[str] = set()
_tried: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""names of arguments that attention was given and that are not known here; and the verdict by model"""


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
        plain = getattr(
            sys.modules[type(module).__module__], "eager_attention_forward", sdpa_attention_forward
        )
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
    more = [name for name, value in kwargs.items() if value is not None and name not in KNOWN]
    _met.update(more)
    return bool(more)


def ours(model: PreTrainedModel) -> bool:
    """Whether a model's numbers under `grouped` are those under the library's own attention: tried once, and kept.

    An architecture that hands its attention an argument unknown here keeps its own throughout: what it does beside
    may be done elsewhere, and only for the library's names, as DeepSeek-V3.2's choice of keys is.
    """
    if model not in _tried:
        _tried[model] = _alike(model)
    return _tried[model]


@torch.no_grad()
def _alike(model: PreTrainedModel) -> bool:
    draw = torch.Generator().manual_seed(0)
    top = model.config.get_text_config(decoder=True).vocab_size
    rows = [tuple(torch.randint(1, top, (n,), generator=draw).tolist()) for n in (16, 11)]
    ids, mask = left_pad(rows, model.device)
    look = lambda: forward(model, ids, mask, positions(mask), use_cache=False)[0][:, -1].float()
    _met.clear()
    before = model.config._attn_implementation
    try:
        model.set_attn_implementation("eager")
        theirs = look()
        model.set_attn_implementation(NAME)
        found = look()
    except FAILS:
        return False
    finally:
        model.set_attn_implementation(before)
    gap = ((found - theirs).norm(dim=-1) / theirs.norm(dim=-1)).max()
    return not _met and bool(gap <= closeness(model))


for name, attend in ((NAME, grouped), (FUSED, fused)):
    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, eager_mask)
