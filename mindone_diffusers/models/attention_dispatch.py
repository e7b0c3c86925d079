"""Choosing how attention is computed: upstream's import path, and its dispatch function for processors written for it."""

from collections.abc import Mapping
from typing import Any

from mindspore import Tensor

from ..backend.attention import AttentionBackendName, attention_backend
from ..core.errors import UnsupportedError
from ..nn import functional as F

__all__ = ["AttentionBackendName", "attention_backend", "dispatch_attention_fn"]


def dispatch_attention_fn(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    attention_kwargs: Mapping[str, Any] | None = None,
    *,
    backend: AttentionBackendName | None = None,
    parallel_config: None = None,
) -> Tensor:
    """`nn.functional.scaled_dot_product_attention` of tensors (batch, tokens, heads, size), which the result is as well.

    Args:
        attn_mask: boolean (True = attend) or additive: (batch, keys), or what broadcasts to (batch, heads, queries, keys).
        enable_gqa: accepted for ported code; key and value may always have fewer heads.
        backend: default the active one.

    Raises:
        UnsupportedError: `attention_kwargs` or a `parallel_config`.
    """
    if attention_kwargs or parallel_config is not None:
        raise UnsupportedError("dispatch_attention_fn takes no attention_kwargs and no parallel_config: leave them out.")
    if attn_mask is not None and attn_mask.ndim == 2 and attn_mask.shape == (query.shape[0], key.shape[1]):
        attn_mask = attn_mask.expand_dims(1).expand_dims(1)
    return F.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, scale, backend, "BSND")
