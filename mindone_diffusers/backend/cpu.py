"""The CPU table: torch semantics on MindSpore's CPU kernels (most of `mindspore.mint` has none).

Arguments arrive normalised by `nn.functional`: sizes as tuples, sides of a padding in torch's order (last axis
first). `TABLE` at the end lists the entries; `ascend.py` gives the same names.
"""

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

from .common import attention_chunked, attention_math
from .dropout import next_key

_LOW = 0xFFFFFFFF

# MindSpore's kernels round float16 between a product and its bias, and up to four times within an activation, a softmax or a layer norm
# (which also makes those slower than a cast to float32 and back). PyTorch computes such an operation in float32 and rounds its result once.
# So do the entries here: what they take is `_wide`, and what they give `_like` their input. For bfloat16, in which weights may be
# (`precision.weight_dtype`), it has no kernels.


def _wide(tensor: Tensor | None) -> Tensor | None:
    """Float16 and bfloat16 as float32; anything else passes."""
    return tensor.astype(ms.float32) if tensor is not None and (tensor.dtype == ms.float16 or tensor.dtype == ms.bfloat16) else tensor


def _like(output: Tensor, input: Tensor) -> Tensor:
    return output.astype(ms.float16) if input.dtype == ms.float16 else output


def linear(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    rows = ops.MatMul(transpose_b=True)(_wide(input).reshape((-1, input.shape[-1])), _wide(weight))
    if bias is not None:
        rows = ops.BiasAdd()(rows, _wide(bias))
    return _like(rows.reshape(input.shape[:-1] + (weight.shape[0],)), input)


def conv1d(input, weight, bias, stride, padding, dilation, groups):
    output = conv2d(input.expand_dims(2), weight.expand_dims(2), bias, (1,) + stride, (0,) + padding, (1,) + dilation, groups)
    return output.squeeze(2)


def conv2d(input, weight, bias, stride, padding, dilation, groups):
    return _like(ops.conv2d(_wide(input), _wide(weight), _wide(bias), stride, "pad", padding, dilation, groups), input)


def conv3d(input, weight, bias, stride, padding, dilation, groups):
    return _like(ops.conv3d(_wide(input), _wide(weight), _wide(bias), stride, "pad", padding, dilation, groups), input)


def conv_transpose2d(input, weight, bias, stride, padding, output_padding, groups, dilation):
    batch, _, height, width = input.shape
    out_channels, kernel = weight.shape[1] * groups, weight.shape[2:]
    size = tuple(
        (length - 1) * stride[i] - 2 * padding[i] + dilation[i] * (kernel[i] - 1) + output_padding[i] + 1
        for i, length in enumerate((height, width))
    )
    pad = (padding[0], padding[0], padding[1], padding[1])
    # The primitive is a convolution's gradient: its out_channel is that convolution's, our in_channels.
    output = ops.Conv2DTranspose(weight.shape[0], kernel, pad_mode="pad", pad=pad, stride=stride, dilation=dilation, group=groups)(
        _wide(input), _wide(weight), (batch, out_channels) + size
    )
    return _like(output if bias is None else ops.BiasAdd()(output, _wide(bias)), input)


def group_norm(input, num_groups, weight, bias, eps):
    return ops.group_norm(input, num_groups, weight, bias, eps)


def layer_norm(input, normalized_shape, weight, bias, eps):
    axis = input.ndim - len(normalized_shape)
    if weight is None:
        weight = ops.ones(normalized_shape, input.dtype)
    if bias is None:
        bias = ops.zeros(normalized_shape, input.dtype)
    return _like(ops.LayerNorm(axis, axis, eps)(_wide(input), _wide(weight), _wide(bias))[0], input)


def rms_norm(input, normalized_shape, weight, eps):
    axes = tuple(range(-len(normalized_shape), 0))
    wide = input.astype(ms.float32)
    output = wide * ops.rsqrt(ops.ReduceMean(keep_dims=True)(wide * wide, axes) + eps)
    output = output.astype(input.dtype)
    return output if weight is None else output * weight


def batch_norm(input, running_mean, running_var, weight, bias, eps):
    return ops.batch_norm(input, running_mean, running_var, weight, bias, False, 0.1, eps)


def silu(input):
    return _like(ops.silu(_wide(input)), input)


def gelu(input, approximate):
    return _like(ops.gelu(_wide(input), approximate), input)


def geglu(input):
    hidden, gate = ops.split(_wide(input), input.shape[-1] // 2, -1)
    return _like(hidden * ops.gelu(gate), input)


def relu(input):
    return ops.relu(input)


def leaky_relu(input, negative_slope):
    return _like(ops.leaky_relu(_wide(input), negative_slope), input)


def elu(input, alpha):
    return ops.relu(input) + alpha * ops.elu(-ops.relu(-input))  # MindSpore's has alpha=1 only


def mish(input):
    return ops.mish(input)


def softplus(input):
    return ops.softplus(input)


def sigmoid(input):
    return _like(ops.sigmoid(_wide(input)), input)


def tanh(input):
    return ops.tanh(input)


def softmax(input, dim):
    return _like(ops.softmax(_wide(input), dim), input)


def dropout(input, p):
    kept = kept_elements(input.size, next_key(), p).reshape(input.shape).astype(ms.float32)
    return _like(_wide(input) * ops.stop_gradient(kept) * (1 / (1 - p)), input)


@ops.constexpr
def _least(p):
    return int(float(np.float32(p)) * 2**32)  # as in C++, which gets p in float32


def kept_elements(count, key, p):
    """Which of so many elements dropout keeps: those whose place, mixed with the key's halves by C. Wellons' lowbias32, gives p or more."""
    bits = ops.bitwise_and(ops.arange(0, count, 1, dtype=ms.int64) + key, _LOW)
    bits = ops.bitwise_xor(bits, ops.bitwise_right_shift(bits, 16))
    bits = ops.bitwise_and(bits * 0x7FEB352D, _LOW)
    bits = ops.bitwise_xor(bits, ops.bitwise_right_shift(key, 32) & _LOW)
    bits = ops.bitwise_xor(bits, ops.bitwise_right_shift(bits, 15))
    bits = ops.bitwise_and(bits * 0x846CA68B, _LOW)
    bits = ops.bitwise_xor(bits, ops.bitwise_right_shift(bits, 16))
    return bits >= _least(p)


def embedding(input, weight):
    return ops.gather(weight, input, 0)


@ops.constexpr
def pad_indices(length: int, before: int, after: int, mode: str) -> Tensor:
    """Which of `length` slices stand where, after padding."""
    if mode != "replicate" and max(before, after) > length - (mode == "reflect"):
        raise ValueError(f"Padding an axis of length {length} by ({before}, {after}) is too much for mode {mode!r}.")
    numpy_mode = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode]
    return Tensor(np.pad(np.arange(length), (before, after), numpy_mode), ms.int32)


def pad(input, padding, mode, value):
    for side in range(0, len(padding), 2):
        axis = input.ndim - 1 - side // 2
        before, after = padding[side], padding[side + 1]
        if mode != "constant":
            if before or after:
                input = ops.gather(input, pad_indices(input.shape[axis], before, after, mode), axis)
            continue
        if before < 0 or after < 0:
            input = input.narrow(axis, max(-before, 0), input.shape[axis] + min(before, 0) + min(after, 0))
        # Not MindSpore's kernel: with negative sides, which its gradient has, it takes memory from elsewhere, or hangs.
        parts = ()
        if before > 0:
            parts += (_filled(input, axis, before, value),)
        parts += (input,)
        if after > 0:
            parts += (_filled(input, axis, after, value),)
        input = ops.concat(parts, axis) if len(parts) > 1 else input
    return input


def _filled(input, axis, length, value):
    return ops.full(input.shape[:axis] + (length,) + input.shape[axis + 1 :], value, dtype=input.dtype)


def interpolate_nearest(input, size):
    for axis in range(2, input.ndim):
        input = repeat_interleave(input, size[axis - 2] // input.shape[axis], axis)
    return input


@ops.constexpr
def resize_matrix(length: int, target: int, scale: float | None, mode: str, align_corners: bool) -> Tensor:
    """The (target, length) weights by which the resized axis is made of the old one.

    As in torch, a point lies in the middle of its cell, or with `align_corners` the first and last points stay where
    they are; `scale` replaces target / length. The cubic is R. Keys' with a = -0.75 (doi:10.1109/TASSP.1981.1163711).
    """
    points = np.arange(target)
    step = np.float32(length / target if scale is None else 1 / scale)
    if mode == "nearest":
        taps, weights = [np.floor(points.astype(np.float32) * step)], [np.ones(target)]
    else:
        if align_corners:
            places = points * ((length - 1) / max(target - 1, 1))
        else:
            places = (points + 0.5) * step.astype(np.float64) - 0.5
        if mode == "bicubic":
            first = np.floor(places)
            t, a = places - first, -0.75
            outer = lambda d: ((a * d - 5 * a) * d + 8 * a) * d - 4 * a  # noqa: E731
            inner = lambda d: ((a + 2) * d - (a + 3)) * d * d + 1  # noqa: E731
            taps = [first - 1, first, first + 1, first + 2]
            weights = [outer(t + 1), inner(t), inner(1 - t), outer(2 - t)]
        else:
            places = places.clip(0, length - 1)
            first = np.floor(places)
            taps, weights = [first, first + 1], [1 - places + first, places - first]
    matrix = np.zeros((target, length))
    for tap, weight in zip(taps, weights):
        np.add.at(matrix, (points, tap.clip(0, length - 1).astype(int)), weight)
    return Tensor(matrix, ms.float32)


def interpolate(input, size, scale_factor, mode, align_corners):
    output = input.astype(ms.float32)
    for axis in range(2, input.ndim):
        scale = None if scale_factor is None else scale_factor[axis - 2]
        matrix = resize_matrix(input.shape[axis], size[axis - 2], scale, mode, align_corners)
        output = linear(output.swapaxes(axis, -1), matrix, None).swapaxes(axis, -1)
    return output.astype(input.dtype)


def avg_pool2d(input, kernel_size, stride, padding, ceil_mode):
    rows, columns = padding
    if rows or columns:
        input = ops.pad(input, (columns, columns, rows, rows))
    return ops.avg_pool2d(input, kernel_size, stride, ceil_mode=ceil_mode)


def max_pool2d(input, kernel_size, stride, padding):
    return ops.max_pool2d(input, kernel_size, stride, padding)


def cat(tensors, dim):
    return ops.concat(tensors, dim)


def stack(tensors, dim):
    return ops.stack(tensors, dim)


def split(input, sizes, dim):
    return ops.split(input, sizes, dim)


def repeat_interleave(input, repeats, dim):
    dim = dim % input.ndim
    shape = input.shape
    cells = input.expand_dims(dim + 1)
    cells = ops.broadcast_to(cells, shape[: dim + 1] + (repeats,) + shape[dim + 1 :])
    return cells.reshape(shape[:dim] + (shape[dim] * repeats,) + shape[dim + 1 :])


def arange(start, end, step, dtype):
    return ops.arange(start, end, step, dtype=dtype)


def argmax(input, dim):
    return ops.argmax(input, dim)


def cumsum(input, dim):
    return _like(ops.cumsum(_wide(input), dim), input)


def bmm(input, other, transpose_b):
    return ops.BatchMatMul(transpose_b=transpose_b)(input, other)


def attention(query, key, value, attn_mask, is_causal, scale, kernel="chunked"):
    """Two products and a softmax: at once for `kernel` "math", else with bounded memory."""
    if kernel == "math":
        return attention_math(query, key, value, attn_mask, is_causal, scale)
    return attention_chunked(query, key, value, attn_mask, is_causal, scale)


ATTENTION_LAYOUT = "BNSD"
TABLE = (
    linear, conv1d, conv2d, conv3d, conv_transpose2d, group_norm, layer_norm, rms_norm, batch_norm, silu, gelu, geglu, relu,
    leaky_relu, elu, mish, softplus, sigmoid, tanh, softmax, dropout, embedding, pad, interpolate_nearest,
    interpolate, avg_pool2d, max_pool2d, cat, stack, split, repeat_interleave, arange, argmax, cumsum, bmm,
    attention,
)  # fmt: skip
