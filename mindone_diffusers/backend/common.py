"""Pieces both op tables use."""

import mindspore as ms
from mindspore import Tensor, ops

# `attention_chunked` keeps the scores of one call below this many bytes, where it can.
ATTENTION_SCORE_BYTES = 512 * 2**20


def swap_heads_and_tokens(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """From (batch, heads, tokens, size) to (batch, tokens, heads, size), or back."""
    return query.swapaxes(1, 2), key.swapaxes(1, 2), value.swapaxes(1, 2)


def grouped_heads(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Repeat the key and value heads until they match the query's (grouped-query attention)."""
    groups = query.shape[1] // key.shape[1]
    if groups == 1:
        return key, value
    batch, heads, tokens, _ = key.shape
    shape = (batch, heads, groups, tokens)
    key = ops.broadcast_to(key.expand_dims(2), shape + (key.shape[-1],))
    value = ops.broadcast_to(value.expand_dims(2), shape + (value.shape[-1],))
    merged = (batch, heads * groups, tokens)
    return key.reshape(merged + (key.shape[-1],)), value.reshape(merged + (value.shape[-1],))


def additive_mask(mask: Tensor, dtype) -> Tensor:
    """A boolean mask (True = attend) as an additive one; additive masks pass."""
    if mask.dtype != ms.bool_:
        return mask.astype(dtype)
    return ops.select(mask, ops.zeros(mask.shape, dtype), ops.full(mask.shape, float("-inf"), dtype=dtype))


def causal_mask(first_query: int, queries: int, keys: int, dtype) -> Tensor:
    """Additive (queries, keys) mask in which query i sees the keys up to i."""
    rows = ops.arange(first_query, first_query + queries).reshape((queries, 1))
    return additive_mask(rows >= ops.arange(0, keys).reshape((1, keys)), dtype)


def attention_math(query, key, value, attn_mask, is_causal, scale, first_query: int = 0) -> Tensor:
    """softmax(Q K^T * scale + mask) V as two batched products; a query that may attend to nothing gives 0.

    The scores stay in the inputs' dtype, the softmax is taken in float32. Key and value may have fewer heads, a divisor of the query's.
    """
    key, value = grouped_heads(query, key, value)
    scores = ops.BatchMatMul(transpose_b=True)(query * scale, key)
    mask, seeing = None, None
    if attn_mask is not None:
        mask = additive_mask(attn_mask, scores.dtype)
    if is_causal:
        causal = causal_mask(first_query, query.shape[2], key.shape[2], scores.dtype)
        mask = causal if mask is None else mask + causal
    if attn_mask is not None:
        seeing = ops.ReduceAny(keep_dims=True)(mask > float("-inf"), -1)
        mask = ops.select(seeing, mask, ops.zeros_like(mask))
    if mask is not None:
        scores = scores + mask
    weights = ops.softmax(scores.astype(ms.float32), -1).astype(value.dtype)
    output = ops.BatchMatMul()(weights, value)
    return output if seeing is None else output * seeing.astype(output.dtype)


def attention_chunked(query, key, value, attn_mask, is_causal, scale) -> Tensor:
    """`attention_math` for so many queries at a time that their scores stay below `ATTENTION_SCORE_BYTES`."""
    key, value = grouped_heads(query, key, value)
    batch, heads, queries, _ = query.shape
    rows = max(1, ATTENTION_SCORE_BYTES // (batch * heads * key.shape[2] * 4))
    if rows >= queries:
        return attention_math(query, key, value, attn_mask, is_causal, scale)
    outputs = ()
    for start in range(0, queries, rows):
        stop = min(start + rows, queries)
        mask = attn_mask
        if mask is not None and mask.shape[-2] != 1:
            mask = mask[..., start:stop, :]
        outputs += (attention_math(query[:, :, start:stop], key, value, mask, is_causal, scale, start),)
    return ops.concat(outputs, 2)
