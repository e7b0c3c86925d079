"""`torch.nn.functional` and the `torch` functions models need, with torch's names, arguments and semantics.

Each function normalises its arguments and calls the active device's table (`backend/table.py`). All of them work
eagerly, under `mindspore.jit`, and differentiate.
"""

import math
from collections.abc import Sequence
from typing import Any

import mindspore as ms
from mindspore import Tensor

from ..backend.attention import choose
from ..backend.common import swap_heads_and_tokens
from ..backend.table import table

# How many spatial axes each mode of `interpolate` is for; 0: any.
INTERPOLATION_AXES = {"nearest": 0, "linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}
PAD_MODES = ("constant", "reflect", "replicate", "circular")


def _tuple(value, length: int) -> tuple:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * length


# Layers with weights


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`input @ weight.T + bias`; input (..., in), weight (out, in), bias (out,)."""
    return table.linear(input, weight, bias)


def conv1d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Tensor:
    """Input (N, C, L), weight (out, C / groups, k)."""
    return table.conv1d(input, weight, bias, _tuple(stride, 1), _tuple(padding, 1), _tuple(dilation, 1), groups)


def conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Tensor:
    """Input (N, C, H, W), weight (out, C / groups, kh, kw)."""
    return table.conv2d(input, weight, bias, _tuple(stride, 2), _tuple(padding, 2), _tuple(dilation, 2), groups)


def conv3d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Tensor:
    """Input (N, C, D, H, W), weight (out, C / groups, kd, kh, kw)."""
    return table.conv3d(input, weight, bias, _tuple(stride, 3), _tuple(padding, 3), _tuple(dilation, 3), groups)


def conv_transpose2d(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1) -> Tensor:
    """Input (N, C, H, W), weight (C, out / groups, kh, kw)."""
    return table.conv_transpose2d(
        input, weight, bias, _tuple(stride, 2), _tuple(padding, 2), _tuple(output_padding, 2), groups,
        _tuple(dilation, 2),
    )  # fmt: skip


def embedding(input: Tensor, weight: Tensor) -> Tensor:
    """Rows of `weight` (entries, size) at the integer indices `input`."""
    return table.embedding(input, weight)


# Normalisation


def group_norm(input, num_groups: int, weight=None, bias=None, eps: float = 1e-5) -> Tensor:
    """Normalise (N, C, ...) over each of `num_groups` groups of channels (arXiv:1803.08494)."""
    if weight is None:
        weight = ones((input.shape[1],), input.dtype)
    if bias is None:
        bias = zeros((input.shape[1],), input.dtype)
    return table.group_norm(input, num_groups, weight, bias, eps)


def layer_norm(input, normalized_shape, weight=None, bias=None, eps: float = 1e-5) -> Tensor:
    """Normalise over the last axes, whose sizes are `normalized_shape` (arXiv:1607.06450)."""
    return table.layer_norm(input, _tuple(normalized_shape, 1), weight, bias, eps)


def rms_norm(input, normalized_shape, weight=None, eps: float | None = None) -> Tensor:
    """Divide by the root mean square over the last axes (arXiv:1910.07467); the mean is taken in float32."""
    if eps is None:
        eps = 1.1920928955078125e-07
    return table.rms_norm(input, _tuple(normalized_shape, 1), weight, eps)


def batch_norm(input, running_mean, running_var, weight, bias, eps: float = 1e-5) -> Tensor:
    """Batch normalisation with the stored statistics (inference)."""
    return table.batch_norm(input, running_mean, running_var, weight, bias, eps)


def normalize(input, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """Divide by the Euclidean norm along `dim`, which is at least `eps`."""
    if p != 2.0:
        raise ValueError(f"normalize supports p=2 only, got p={p}.")
    norm = (input * input).sum(dim, keepdims=True).sqrt()
    return input / norm.clamp(min=eps)


# Activations


def silu(input: Tensor) -> Tensor:
    return table.silu(input)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """Gaussian error linear unit (arXiv:1606.08415); `approximate` is "none" (erf) or "tanh"."""
    return table.gelu(input, approximate)


def geglu(input: Tensor) -> Tensor:
    """Cut the last axis in halves `hidden` and `gate`; `hidden * gelu(gate)` (arXiv:2002.05202)."""
    return table.geglu(input)


def relu(input: Tensor) -> Tensor:
    return table.relu(input)


def leaky_relu(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    return table.leaky_relu(input, negative_slope)


def elu(input: Tensor, alpha: float = 1.0) -> Tensor:
    return table.elu(input, alpha)


def mish(input: Tensor) -> Tensor:
    return table.mish(input)


def softplus(input: Tensor) -> Tensor:
    return table.softplus(input)


def sigmoid(input: Tensor) -> Tensor:
    return table.sigmoid(input)


def tanh(input: Tensor) -> Tensor:
    return table.tanh(input)


def softmax(input: Tensor, dim: int = -1) -> Tensor:
    return table.softmax(input, dim)


def dropout(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    return table.dropout(input, p) if training and p > 0 else input


# Shapes and sampling


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float = 0.0) -> Tensor:
    """Pad the last axes; `pad` lists (before, after) pairs, last axis first.

    `mode` is "constant", "reflect", "replicate" or "circular".
    """
    if mode not in PAD_MODES:
        raise ValueError(f"pad has no mode {mode!r}: expected one of {PAD_MODES}.")
    return table.pad(input, tuple(pad), mode, value)


def interpolate(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """Resize the spatial axes of (N, C, ...) to `size`, or by `scale_factor`.

    `mode`: "nearest" (any rank), "linear" (one spatial axis), "bilinear", "bicubic" (two) or "trilinear" (three).

    Raises:
        ValueError: for both or neither of `size` and `scale_factor`, or a mode that does not fit the rank.
        NotImplementedError: for another mode.
    """
    spatial = input.shape[2:]
    if (size is None) == (scale_factor is None):
        raise ValueError("interpolate takes either size or scale_factor.")
    if mode not in INTERPOLATION_AXES:
        raise NotImplementedError(f"interpolate has no mode {mode!r}: expected one of {tuple(INTERPOLATION_AXES)}.")
    if INTERPOLATION_AXES[mode] not in (0, len(spatial)):
        raise ValueError(f"interpolate's mode {mode!r} is not for an input of shape {input.shape}.")
    scales = None
    if size is None:
        scales, sizes = (), ()
        for length, factor in zip(spatial, _tuple(scale_factor, len(spatial))):
            scales += (float(factor),)
            sizes += (int(math.floor(length * factor)),)
    else:
        sizes = _tuple(size, len(spatial))
    whole = mode == "nearest"
    for length, target in zip(spatial, sizes):
        whole = whole and target % length == 0
    if whole:
        return table.interpolate_nearest(input, sizes)
    return table.interpolate(input, sizes, scales, mode, bool(align_corners))


def avg_pool2d(input, kernel_size, stride=None, padding=0, ceil_mode: bool = False) -> Tensor:
    """Averages of windows; with `ceil_mode` also of those that the border cuts."""
    kernel = _tuple(kernel_size, 2)
    return table.avg_pool2d(input, kernel, kernel if stride is None else _tuple(stride, 2), _tuple(padding, 2), ceil_mode)


def max_pool2d(input, kernel_size, stride=None, padding=0) -> Tensor:
    kernel = _tuple(kernel_size, 2)
    return table.max_pool2d(input, kernel, kernel if stride is None else _tuple(stride, 2), _tuple(padding, 2))


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    return table.cat(tensors, dim)


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    return table.stack(tensors, dim)


def split(input: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    return table.split(input, split_size_or_sections, dim)


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Cut `dim` into `chunks` pieces of equal length (the last may be shorter)."""
    return table.split(input, -(-input.shape[dim] // chunks), dim)


def repeat_interleave(input: Tensor, repeats: int, dim: int) -> Tensor:
    """Repeat each slice of `dim` `repeats` times in place: [a, b] becomes [a, a, b, b]."""
    return table.repeat_interleave(input, repeats, dim)


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(N, C r^2, H, W) to (N, C, H r, W r) (arXiv:1609.05158)."""
    batch, channels, height, width = input.shape
    r = upscale_factor
    cells = input.reshape((batch, channels // r**2, r, r, height, width)).transpose((0, 1, 4, 2, 5, 3))
    return cells.reshape((batch, channels // r**2, height * r, width * r))


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """(N, C, H r, W r) to (N, C r^2, H, W)."""
    batch, channels, height, width = input.shape
    r = downscale_factor
    cells = input.reshape((batch, channels, height // r, r, width // r, r)).transpose((0, 1, 3, 5, 2, 4))
    return cells.reshape((batch, channels * r**2, height // r, width // r))


# Making and reducing tensors


def arange(start: float, end: float | None = None, step: float = 1, dtype=ms.int64) -> Tensor:
    if end is None:
        start, end = 0, start
    return table.arange(start, end, step, dtype)


def zeros(size: Sequence[int], dtype=ms.float32) -> Tensor:
    return ms.ops.zeros(tuple(size), dtype)


def ones(size: Sequence[int], dtype=ms.float32) -> Tensor:
    return ms.ops.ones(tuple(size), dtype)


def full(size: Sequence[int], fill_value: float, dtype=ms.float32) -> Tensor:
    return ms.ops.full(tuple(size), fill_value, dtype=dtype)


def where(condition: Tensor, input: Tensor | float, other: Tensor | float) -> Tensor:
    return ms.ops.where(condition, input, other)


def detach(input: Tensor) -> Tensor:
    """The same values, through which no gradient passes."""
    return ms.ops.stop_gradient(input)


def assign(parameter: ms.Parameter, value: Tensor) -> Tensor:
    """Write into a parameter, also from within a graph."""
    return ms.ops.assign(parameter, value)


def argmax(input: Tensor, dim: int) -> Tensor:
    return table.argmax(input, dim)


def cumsum(input: Tensor, dim: int) -> Tensor:
    return table.cumsum(input, dim)


def bmm(input: Tensor, other: Tensor, transpose_b: bool = False) -> Tensor:
    """Batched matrix product; `transpose_b` multiplies by the transpose of `other`'s last two axes without moving it."""
    return table.bmm(input, other, transpose_b)


# Attention


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    backend: str | None = None,
    layout: str = "BNSD",
    precision: Any = None,
) -> Tensor:
    """softmax(Q K^T * scale + mask) V (arXiv:1706.03762).

    query (batch, heads, tokens, size), as the result; key and value may have fewer heads (a divisor: grouped-query attention). With the
    `layout` "BSND" they are (batch, tokens, heads, size), as projections give them, which spares transposing them on Ascend.
    `attn_mask` is boolean (True = attend) or additive, and broadcasts to (batch, heads, queries, keys). `scale`
    defaults to size ** -0.5. Dropout is not supported and must be 0. `backend` is the name of one (`backend/attention.py`), by default the
    active one's. With bfloat16 as `precision`, the CPU's native kernel may round to it what it multiplies.
    """
    if dropout_p != 0.0:
        raise ValueError(f"scaled_dot_product_attention supports dropout_p=0 only, got {dropout_p}.")
    if scale is None:
        scale = query.shape[-1] ** -0.5
    if attn_mask is not None:
        while attn_mask.ndim < 4:
            attn_mask = attn_mask.expand_dims(0)
    kernel = choose(backend, query.dtype, query.shape, key.shape, value.shape, layout)
    if kernel == "native" and precision == ms.bfloat16:
        kernel = "native_bfloat16"
    transposed = layout != table.attention_layout
    if transposed:
        query, key, value = swap_heads_and_tokens(query, key, value)
    output = table.attention(query, key, value, attn_mask, is_causal, scale, kernel)
    return output.swapaxes(1, 2) if transposed else output
