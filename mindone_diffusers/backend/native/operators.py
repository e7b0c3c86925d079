"""The kernels as entries of the CPU table: the functions of `cpu.py`, for float32; other dtypes go to those.

Gradients are those of `cpu.py`'s functions, computed again in the backward pass. The shape functions check what the
kernels rely on, because C++ would read out of bounds where MindSpore's operators raise.
"""

import mindspore as ms
from mindspore import Tensor, ops

from .. import cpu
from ..common import additive_mask
from ..dropout import next_key
from . import library

_grad = ops.GradOperation(get_all=True, sens_param=True)
_depend = ops.Depend()


def _variables(inputs, dout):
    """`inputs` as independent variables, for `_grad(function)(*variables, ..., dout)`.

    Eagerly, a tensor passed twice, or computed from another one, would collect the other's gradient too: detach them.
    Graph mode leaves out the gradients of what it knows to be constant: a dependence on `dout` hides that.
    """
    variables = ()
    for tensor in inputs:
        variables += (_depend(ops.stop_gradient(tensor), dout),)
    return variables


def _first(input, *others):
    return input


def _kernel(name: str, shape, bprop=None, dtype=_first) -> ops.Custom:
    kernel = ops.Custom(f"{library()}:{name}", shape, dtype, func_type="aot", bprop=bprop)
    if bprop is not None:  # graph mode takes the gradient of one operator for another's that has the same attributes
        kernel.add_prim_attr("gradient", bprop.__name__)
    return kernel


def _two(input, *others):
    return input, input


# Activations


def _silu_bprop(input, out, dout):
    return (_silu_grad(input, dout),)


def _gelu_bprop(input, out, dout):
    return (_gelu_grad(input, dout),)


def _gelu_tanh_plain(input):
    return cpu.gelu(input, "tanh")


def _gelu_tanh_bprop(input, out, dout):
    return _grad(_gelu_tanh_plain)(*_variables((input,), dout), dout)


def _geglu_bprop(input, out, dout):
    return (_geglu_grad(input, dout),)


def _geglu_shape(input):
    if input[-1] % 2:
        raise ValueError(f"geglu cuts its last axis in two halves, which {input[-1]} has not.")
    return [*input[:-1], input[-1] // 2]


_silu_grad = _kernel("SiluGrad", _first)
_gelu_grad = _kernel("GeluGrad", _first)
_geglu_grad = _kernel("GegluGrad", _first)
_silu = _kernel("Silu", _first, _silu_bprop)
_gelu = _kernel("Gelu", _first, _gelu_bprop)
_gelu_tanh = _kernel("GeluTanh", _first, _gelu_tanh_bprop)
_geglu = _kernel("Geglu", _geglu_shape, _geglu_bprop)


def silu(input: Tensor) -> Tensor:
    return _silu(input) if input.dtype == ms.float32 else cpu.silu(input)


def gelu(input: Tensor, approximate: str) -> Tensor:
    if input.dtype != ms.float32 or approximate not in ("none", "tanh"):
        return cpu.gelu(input, approximate)
    return _gelu(input) if approximate == "none" else _gelu_tanh(input)


def geglu(input: Tensor) -> Tensor:
    return _geglu(input) if input.dtype == ms.float32 else cpu.geglu(input)


# Dropout


def _dropout_bprop(input, key, p, scale, out, dout):
    return _dropout(dout, key, p, scale), ops.zeros_like(key), 0.0, 0.0


_dropout = _kernel("Dropout", _first, _dropout_bprop)


def dropout(input: Tensor, p: float) -> Tensor:
    return _dropout(input, next_key(), float(p), 1 / (1 - p)) if input.dtype == ms.float32 else cpu.dropout(input, p)


# Normalisation


def _group_norm_shape(input, weight, bias, num_groups, eps):
    if weight != bias or list(weight) != [input[1]]:
        raise ValueError(f"group_norm over {input[1]} channels has a weight of shape {weight} and a bias of shape {bias}.")
    return input


def _group_norm_grad_shape(input, weight, dout, num_groups, eps):
    return input, [2, *input[:2]]


def _group_norm_bprop(input, weight, bias, num_groups, eps, out, dout):
    gradient, parts = _group_norm_grad(input, weight, dout, num_groups, eps)
    sums = parts.sum(1)
    return gradient, sums[0], sums[1], 0.0, 0.0


def _layer_norm_shape(input, weight, bias, eps):
    if weight != bias or list(weight) != list(input[len(input) - len(weight) :]):
        raise ValueError(f"layer_norm of shape {input} has a weight of shape {weight} and a bias of shape {bias}.")
    return input


def _layer_norm_grad_shape(input, weight, dout, eps):
    return input, [2, _PARTS, *weight]


def _layer_norm_bprop(input, weight, bias, eps, out, dout):
    gradient, parts = _layer_norm_grad(input, weight, dout, eps)
    sums = parts.sum(1)
    return gradient, sums[0], sums[1], 0.0


_PARTS = 16  # rows are summed in so many parts, which may run at the same time
_group_norm_grad = _kernel("GroupNormGrad", _group_norm_grad_shape, dtype=_two)
_layer_norm_grad = _kernel("LayerNormGrad", _layer_norm_grad_shape, dtype=_two)
_group_norm = _kernel("GroupNorm", _group_norm_shape, _group_norm_bprop)
_layer_norm = _kernel("LayerNorm", _layer_norm_shape, _layer_norm_bprop)


def group_norm(input: Tensor, num_groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    if not (input.dtype == ms.float32 and weight.dtype == ms.float32 and bias.dtype == ms.float32) or input.shape[1] % num_groups:
        return cpu.group_norm(input, num_groups, weight, bias, eps)
    return _group_norm(input, weight, bias, float(num_groups), float(eps))


def layer_norm(input: Tensor, normalized_shape: tuple[int, ...], weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    if weight is None:
        weight = ops.ones(normalized_shape, input.dtype)
    if bias is None:
        bias = ops.zeros(normalized_shape, input.dtype)
    if not (input.dtype == ms.float32 and weight.dtype == ms.float32 and bias.dtype == ms.float32):
        return cpu.layer_norm(input, normalized_shape, weight, bias, eps)
    return _layer_norm(input, weight, bias, float(eps))


# Products


def _takes(input: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the dtypes are those of the kernels of products and convolutions."""
    floats = input.dtype == ms.float32 and (bias is None or bias.dtype == ms.float32)
    return floats and (weight.dtype == ms.float32 or weight.dtype == ms.bfloat16)


def _linear_shape(input, weight, *bias):
    if input[-1] != weight[1] or any(list(size) != [weight[0]] for size in bias):
        raise ValueError(f"linear of {input[-1]} features has a weight of shape {weight} and a bias of shape {bias[0] if bias else None}.")
    return [*input[:-1], weight[0]]


def _linear_plain(input, weight):
    return cpu.linear(input, weight, None)


def _linear_bprop(input, weight, out, dout):
    return _grad(_linear_plain)(*_variables((input, weight), dout), dout)


def _biased_linear_bprop(input, weight, bias, out, dout):
    return _grad(cpu.linear)(*_variables((input, weight, bias), dout), dout)


_linear = _kernel("Linear", _linear_shape, _linear_bprop)
_biased_linear = _kernel("Linear", _linear_shape, _biased_linear_bprop)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """From 16 rows and a million multiplications on; below, packing the weights, or calling the kernel, takes longer than it saves, unless
    they are in bfloat16 and would be cast."""
    rows = input.size // max(input.shape[-1], 1)
    few = rows < 16 or input.size * weight.shape[0] < 1 << 20
    if not _takes(input, weight, bias) or few and weight.dtype == ms.float32:
        return cpu.linear(input, weight, bias)
    return _linear(input, weight) if bias is None else _biased_linear(input, weight, bias)


# Convolutions


def _conv_shape(stride: int, padding: int):
    """A shape function of a convolution's: it sees shapes only, not these numbers."""

    def shape(input, weight, bias, *numbers):
        if input[1] != weight[1] or [weight[0]] != list(bias):
            raise ValueError(f"conv2d of {input[1]} channels has a weight of shape {weight} and a bias of shape {bias}.")
        return [input[0], weight[0], *((length + 2 * padding - weight[2]) // stride + 1 for length in input[2:])]

    return shape


def _conv_input_grad_shape(dout, weight, input, stride, padding):
    return input


def _conv_weight_grad_shape(input, dout, weight, stride, padding):
    return weight, weight[:1]


def _small_conv_bprop(input, weight, bias, stride, padding, out, dout):
    gradient = _conv_input_grad(dout, weight, input, stride, padding)
    weight_gradient, bias_gradient = _conv_weight_grad(input, dout, weight, stride, padding)
    return gradient, weight_gradient, bias_gradient, 0.0, 0.0


def _conv_plain(input, weight, bias, stride, padding):
    return cpu.conv2d(input, weight, bias, (int(stride),) * 2, (int(padding),) * 2, (1, 1), 1)


def _conv_bprop(input, weight, bias, stride, padding, out, dout):
    return _grad(_conv_plain)(*_variables((input, weight, bias), dout), stride, padding, dout) + (0.0, 0.0)


def _conv_kernels(name: str, strides: tuple[int, ...], paddings: tuple[int, ...]):
    """A kernel by whether its gradients are kernels too, by stride and by padding."""
    return tuple(
        {(stride, padding): _kernel(name, _conv_shape(stride, padding), bprop) for stride in strides for padding in paddings}
        for bprop in (_conv_bprop, _small_conv_bprop)
    )


_conv_input_grad = _kernel("ConvInputGrad", _conv_input_grad_shape)
_conv_weight_grad = _kernel("ConvWeightGrad", _conv_weight_grad_shape, dtype=_two)
_direct_conv = _conv_kernels("DirectConv", (1, 2), (0, 1))
_patch_conv = _conv_kernels("PatchConv", (1, 2), (0, 1))
_pointwise_conv = _conv_kernels("PointwiseConv", (1,), (0,))
_winograd_conv = _conv_kernels("WinogradConv", (1,), (1,))


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Tensor:
    """1x1 and 3x3, with float32 weights on images of 64 pixels or more. Up to 4096 pairs of channels, gradients are kernels too; else
    MindSpore's.

    Winograd's products round several times as much as direct ones: they are for where they save a millisecond.
    """
    outputs, channels, height, width = weight.shape
    usual = (height, padding) in ((1, (0, 0)), (3, (0, 0)), (3, (1, 1))) and stride in ((1, 1), (2, 2)) and dilation == (1, 1)
    pixels = input.shape[2] * input.shape[3]
    tiny = pixels < 64 and weight.dtype == ms.float32
    if not usual or height != width or groups != 1 or tiny or not _takes(input, weight, bias):
        return cpu.conv2d(input, weight, bias, stride, padding, dilation, groups)
    if bias is None:
        bias = ops.zeros((outputs,), ms.float32)
    small = outputs * channels <= 4096
    worthwhile = input.shape[0] * pixels * outputs * channels >= 1 << 24
    few = channels < 32 or outputs < 16
    if height == 1 and stride == (1, 1):
        kernels = _pointwise_conv
    elif padding == (1, 1) and stride == (1, 1) and worthwhile and (not few or channels * pixels >= 1 << 22):
        kernels = _winograd_conv
    elif small and (channels < 16 or stride == (1, 1)):
        kernels = _direct_conv
    else:
        kernels = _patch_conv
    if small:  # these kernels are of float32 only
        weight = weight.astype(ms.float32)
    return kernels[small][stride[0], padding[0]](input, weight, bias, float(stride[0]), float(padding[0]))


# Sampling


def _double_shape(input):
    return [*input[:2], 2 * input[2], 2 * input[3]]


def _double_plain(input):
    return cpu.interpolate_nearest(input, (2 * input.shape[2], 2 * input.shape[3]))


def _double_bprop(input, out, dout):
    return _grad(_double_plain)(*_variables((input,), dout), dout)


_double = _kernel("DoubleNearest", _double_shape, _double_bprop)


def interpolate_nearest(input: Tensor, size: tuple[int, ...]) -> Tensor:
    if input.dtype == ms.float32 and input.ndim == 4 and size == (2 * input.shape[2], 2 * input.shape[3]):
        return _double(input)
    return cpu.interpolate_nearest(input, size)


# Attention


def _attention_shape(query, key, value, scale, is_causal, mask=None):
    if query[0] != key[0] or query[3] != key[3] or key[:3] != value[:3] or query[1] % key[1]:
        raise ValueError(
            f"attention takes a query (batch, heads, tokens, size), a key of the same batch and size whose number of heads divides the "
            f"query's, and as many values as keys; got {query}, {key} and {value}."
        )
    scores = [*query[:3], key[2]]
    if mask is not None and any(length not in (1, full) for length, full in zip(mask, scores)):
        raise ValueError(f"The attention mask's shape must broadcast to {scores}, got {mask}.")
    return [*query[:3], value[3]]


def _attention_plain(query, key, value, scale, is_causal):
    return cpu.attention(query, key, value, None, bool(is_causal), scale)


def _attention_bprop(query, key, value, scale, is_causal, out, dout):
    return _grad(_attention_plain)(*_variables((query, key, value), dout), scale, is_causal, dout) + (0.0, 0.0)


def _masked_attention_plain(query, key, value, mask, scale, is_causal):
    return cpu.attention(query, key, value, mask, bool(is_causal), scale)


def _masked_attention_bprop(query, key, value, scale, is_causal, mask, out, dout):
    gradients = _grad(_masked_attention_plain)(*_variables((query, key, value, mask), dout), scale, is_causal, dout)
    return gradients[:3] + (0.0, 0.0, gradients[3])


_attention = _kernel("Attention", _attention_shape, _attention_bprop)
_masked_attention = _kernel("Attention", _attention_shape, _masked_attention_bprop)
_rounded_attention = _kernel("AttentionOfBfloat16", _attention_shape, _attention_bprop)
_masked_rounded_attention = _kernel("AttentionOfBfloat16", _attention_shape, _masked_attention_bprop)


def attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, is_causal: bool, scale: float, kernel: str = "native"
) -> Tensor:
    """The kernel "native" computes in float32, whatever the inputs' dtype, and "native_bfloat16" rounds what it multiplies, where the
    processor can; of others it knows the names only."""
    if kernel not in ("native", "native_bfloat16"):
        return cpu.attention(query, key, value, attn_mask, is_causal, scale, kernel)
    dtype = value.dtype
    if dtype != ms.float32:
        query, key, value = query.astype(ms.float32), key.astype(ms.float32), value.astype(ms.float32)
    if attn_mask is None:
        compute = _attention if kernel == "native" else _rounded_attention
        output = compute(query, key, value, float(scale), float(is_causal))
    else:
        compute = _masked_attention if kernel == "native" else _masked_rounded_attention
        output = compute(query, key, value, float(scale), float(is_causal), additive_mask(attn_mask, ms.float32))
    return output if dtype == ms.float32 else output.astype(dtype)
