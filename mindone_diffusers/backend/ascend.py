"""The Ascend table: the same functions as `cpu.py` on `mindspore.mint` (aclnn) and Ascend's fused kernels.

No NPU is needed to compile it: `mindspore.export` type- and shape-checks these operators on any machine, and the
audit test does so for every entry.
"""

import mindspore as ms
from mindspore import mint, ops

from .ascend_operators import HEAD_SIZE_MULTIPLE
from .common import additive_mask, attention_chunked, attention_math, swap_heads_and_tokens

F = mint.nn.functional


def linear(input, weight, bias):
    return F.linear(input, weight, bias)


def conv1d(input, weight, bias, stride, padding, dilation, groups):
    output = conv2d(input.expand_dims(2), weight.expand_dims(2), bias, (1,) + stride, (0,) + padding, (1,) + dilation, groups)
    return output.squeeze(2)


def conv2d(input, weight, bias, stride, padding, dilation, groups):
    return F.conv2d(input, weight, bias, stride, padding, dilation, groups)


def conv3d(input, weight, bias, stride, padding, dilation, groups):
    return F.conv3d(input, weight, bias, stride, padding, dilation, groups)


def conv_transpose2d(input, weight, bias, stride, padding, output_padding, groups, dilation):
    return F.conv_transpose2d(input, weight, bias, stride, padding, output_padding, groups, dilation)


def group_norm(input, num_groups, weight, bias, eps):
    return F.group_norm(input, num_groups, weight, bias, eps)


def layer_norm(input, normalized_shape, weight, bias, eps):
    return F.layer_norm(input, normalized_shape, weight, bias, eps)


def rms_norm(input, normalized_shape, weight, eps):
    if weight is None:
        weight = mint.ones(normalized_shape, dtype=input.dtype)
    return ops.rms_norm(input, weight, eps)[0]


def batch_norm(input, running_mean, running_var, weight, bias, eps):
    return F.batch_norm(input, running_mean, running_var, weight, bias, False, 0.1, eps)


def silu(input):
    return F.silu(input)


def gelu(input, approximate):
    return F.gelu(input, approximate=approximate)


def geglu(input):
    hidden, gate = mint.chunk(input, 2, -1)
    return hidden * F.gelu(gate)


def relu(input):
    return F.relu(input)


def leaky_relu(input, negative_slope):
    return F.leaky_relu(input, negative_slope)


def elu(input, alpha):
    return F.elu(input, alpha)


def mish(input):
    return F.mish(input)


def softplus(input):
    return F.softplus(input)


def sigmoid(input):
    return F.sigmoid(input)


def tanh(input):
    return F.tanh(input)


def softmax(input, dim):
    return F.softmax(input, dim)


def dropout(input, p):
    return F.dropout(input, p, True)


def embedding(input, weight):
    return ops.gather(weight, input, 0)


def pad(input, padding, mode, value):
    return F.pad(input, padding, mode, value if mode == "constant" else 0)


def interpolate_nearest(input, size):
    return F.interpolate(input, size, mode="nearest")


def interpolate(input, size, scale_factor, mode, align_corners):
    if scale_factor is not None:
        size = None
    return F.interpolate(input, size, scale_factor, mode, None if mode == "nearest" else align_corners)


def avg_pool2d(input, kernel_size, stride, padding, ceil_mode):
    return F.avg_pool2d(input, kernel_size, stride, padding, ceil_mode)


def max_pool2d(input, kernel_size, stride, padding):
    return F.max_pool2d(input.astype(ms.float32), kernel_size, stride, padding).astype(input.dtype)  # documented for float32 only


def cat(tensors, dim):
    return mint.cat(tensors, dim)


def stack(tensors, dim):
    return mint.stack(tensors, dim)


def split(input, sizes, dim):
    return mint.split(input, sizes, dim)


def repeat_interleave(input, repeats, dim):
    return mint.repeat_interleave(input, repeats, dim)


def arange(start, end, step, dtype):
    return mint.arange(start, end, step, dtype=dtype)


def argmax(input, dim):
    return mint.argmax(input, dim)


def cumsum(input, dim):
    return mint.cumsum(input, dim)


def bmm(input, other, transpose_b):
    return ops.BatchMatMul(transpose_b=transpose_b)(input, other)


def attention(query, key, value, attn_mask, is_causal, scale, kernel="flash"):
    """One of the fused kernels "flash", "prompt_flash" (inference) and "fused_infer" (inference); or two products, "math" and "chunked".

    The fused ones take float16 and bfloat16, and want a head size that is a multiple of 16. Only "flash" takes the tokens before the heads.
    """
    if kernel != "flash":
        query, key, value = swap_heads_and_tokens(query, key, value)
    if kernel == "math":
        return attention_math(query, key, value, attn_mask, is_causal, scale).swapaxes(1, 2)
    if kernel == "chunked":
        return attention_chunked(query, key, value, attn_mask, is_causal, scale).swapaxes(1, 2)
    head_size = query.shape[3]
    padding = -head_size % HEAD_SIZE_MULTIPLE
    if padding:
        query = F.pad(query, (0, padding))
        key = F.pad(key, (0, padding))
        value = F.pad(value, (0, padding))
    if kernel == "flash":
        batch, queries, heads, _ = query.shape
        discard, bias = _discard_and_bias((batch, heads, queries, key.shape[1]), query.dtype, attn_mask, is_causal, True)
        output = ops.flash_attention_score(
            query, key, value, heads, real_shift=bias, attn_mask=discard, scalar_value=scale, input_layout=ATTENTION_LAYOUT
        )  # fmt: skip
        return output[..., :head_size] if padding else output
    batch, heads, queries, _ = query.shape
    discard, bias = _discard_and_bias((batch, heads, queries, key.shape[2]), query.dtype, attn_mask, is_causal, False)
    if kernel == "prompt_flash":
        # By default it would hide the keys after the query's position, and round more.
        output = ops.prompt_flash_attention(
            query, key, value, attn_mask=discard, pse_shift=bias, num_heads=heads, scale_value=scale, next_tokens=2147483647,
            input_layout="BNSD", num_key_value_heads=key.shape[1], inner_precise=0,
        )  # fmt: skip
    else:
        precise = 2 if discard is not None and query.shape[2] > 1 else 0  # 2: a query may see no key
        output = ops.fused_infer_attention_score(
            query, key, value, pse_shift=bias, atten_mask=discard, num_heads=heads, scale=scale, input_layout="BNSD",
            num_key_value_heads=key.shape[1], inner_precise=precise,
        )[0]  # fmt: skip
    return (output[..., :head_size] if padding else output).swapaxes(1, 2)


def _discard_and_bias(shape, dtype, attn_mask, is_causal, by_head):
    """A mask as the fused kernels want it, with all queries and keys, for scores of this shape and dtype.

    What is discarded (1, not kept) is (batch, 1 or heads, queries, keys) or (queries, keys), but of one head only unless `by_head`. What is
    added to the scores, in their dtype, is (batch, heads, queries, keys).
    """
    batch, _, queries, keys = shape
    discard, bias = None, None
    if attn_mask is not None:
        if attn_mask.dtype == ms.bool_ and (by_head or attn_mask.shape[1] == 1):
            discard = mint.logical_not(attn_mask).broadcast_to((batch, attn_mask.shape[1], queries, keys))
        else:
            bias = additive_mask(attn_mask, dtype).broadcast_to(shape)
    if is_causal:
        future = mint.triu(mint.ones((queries, keys), dtype=ms.uint8), 1).astype(ms.bool_)
        discard = future if discard is None else mint.logical_or(discard, future)
    return discard, bias


ATTENTION_LAYOUT = "BSND"
TABLE = (
    linear, conv1d, conv2d, conv3d, conv_transpose2d, group_norm, layer_norm, rms_norm, batch_norm, silu, gelu, geglu, relu,
    leaky_relu, elu, mish, softplus, sigmoid, tanh, softmax, dropout, embedding, pad, interpolate_nearest,
    interpolate, avg_pool2d, max_pool2d, cat, stack, split, repeat_interleave, arange, argmax, cumsum, bmm,
    attention,
)  # fmt: skip
