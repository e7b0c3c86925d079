"""Layers with torch's names, constructor arguments, parameter names and shapes.

Parameters are created without being filled: they allocate no memory until a checkpoint is bound to them
(`core/weights.py`) or `initialize` fills them with torch's default distributions.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import mindspore as ms
import mindspore.nn
import numpy as np
from mindspore import Tensor
from mindspore.common.initializer import initializer

from . import functional as F

Initializer = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]

_dtype = _weight_dtype = ms.float32


@contextlib.contextmanager
def parameter_dtype(dtype, weights=None) -> Iterator[None]:
    """Within the context, layers create their parameters in `dtype` (float32 by default), and linear layers and 2d convolutions their
    weights in `weights`, if that is given."""
    global _dtype, _weight_dtype
    previous = _dtype, _weight_dtype
    _dtype, _weight_dtype = dtype, weights or dtype
    try:
        yield
    finally:
        _dtype, _weight_dtype = previous


def _zeros(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.zeros(shape, np.float32)


def ones_init(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """An `Initializer`: ones."""
    return np.ones(shape, np.float32)


def normal_init(std: float = 1.0) -> Initializer:
    """Draws from a normal distribution of mean 0."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(std)

    return draw


def uniform_init(bound: float) -> Initializer:
    """Draws between -bound and bound."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return (rng.random(shape, dtype=np.float32) * 2 - 1) * np.float32(bound)

    return draw


def Parameter(shape: tuple[int, ...], init: Initializer = _zeros, requires_grad: bool = True) -> ms.Parameter:
    """A parameter that allocates nothing yet; `initialize` fills it with `init(rng, shape)`."""
    return _parameter(shape, init, requires_grad, _dtype)


def _weight(shape: tuple[int, ...], init: Initializer) -> ms.Parameter:
    """A parameter that is one side of products, and nothing else."""
    parameter = _parameter(shape, init, True, _weight_dtype)
    parameter.is_weight = True
    return parameter


def _parameter(shape: tuple[int, ...], init: Initializer, requires_grad: bool, dtype) -> ms.Parameter:
    parameter = ms.Parameter(initializer("zeros", tuple(shape), dtype), requires_grad=requires_grad)
    parameter.draw_initial = init
    return parameter


def is_weight(parameter: ms.Parameter) -> bool:
    """Whether it is a weight of a linear layer or a 2d convolution."""
    return getattr(parameter, "is_weight", False)


def initialize(parameter: ms.Parameter, rng: np.random.Generator) -> None:
    """Fill one parameter with its default distribution."""
    values = parameter.draw_initial(rng, parameter.shape)
    parameter.set_data(Tensor(values).astype(parameter.dtype))


def zeros_(parameter: ms.Parameter) -> None:
    """Make a parameter zero: the values it has, or if it has none yet, those it will be filled with."""
    parameter.draw_initial = _zeros
    if not parameter.has_init:
        initialize(parameter, None)


_nesting = 0


@contextlib.contextmanager
def _nested() -> Iterator[None]:
    global _nesting
    _nesting += 1
    try:
        yield
    finally:
        _nesting -= 1


def is_nesting() -> bool:
    """Whether one of our modules is being put into another, which renames its parameters but does not use them."""
    return _nesting > 0


class Module(ms.nn.Cell):
    """`mindspore.nn.Cell` with the torch method names that ported code calls."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ms.nn.Cell):
            with _nested():
                super().__setattr__(name, value)
        else:
            super().__setattr__(name, value)

    def train(self, mode: bool = True) -> "Module":
        return self.set_train(mode)

    def eval(self) -> "Module":
        return self.set_train(False)

    def named_parameters(self) -> Iterator[tuple[str, ms.Parameter]]:
        return self.parameters_and_names()

    def parameters(self) -> Iterator[ms.Parameter]:
        return (parameter for _, parameter in self.parameters_and_names())

    def named_modules(self) -> Iterator[tuple[str, "Module"]]:
        return self.cells_and_names()

    def modules(self) -> Iterator["Module"]:
        return (module for _, module in self.cells_and_names())

    def children(self) -> Iterator["Module"]:
        return iter(self.cells())

    def requires_grad_(self, requires_grad: bool = True) -> "Module":
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self


@contextlib.contextmanager
def overridden(by: type, attributes: Mapping[Module, Mapping[str, Any]]) -> Iterator[None]:
    """Within the context, a class overrides methods of modules, and they have these attributes."""
    kinds = {module: type(module) for module in attributes}
    for module, own in attributes.items():
        module.__class__ = _subclass(kinds[module], by)
        for name, value in own.items():
            setattr(module, name, value)
    try:
        yield
    finally:
        for module, own in attributes.items():
            module.__class__ = kinds[module]
            for name in own:
                delattr(module, name)


@functools.cache
def _subclass(kind: type[Module], by: type) -> type[Module]:
    """Blocks go by their class's name where they share a compilation: it stays."""
    return type(kind.__name__, (by, kind), {"__module__": by.__module__, "__qualname__": f"{by.__name__} {kind.__name__}"})


class ModuleList(ms.nn.CellList, Module):
    """Modules in a list; children are named "0", "1", ..."""

    def __init__(self, modules: Iterable[Module] = ()):
        with _nested():
            super().__init__(list(modules))


class Sequential(ms.nn.SequentialCell, Module):
    """Modules called one after the other."""

    def __init__(self, *modules: Module):
        with _nested():
            super().__init__(*modules)


class Identity(Module):
    def construct(self, input: Tensor) -> Tensor:
        return input


class Linear(Module):
    """`input @ weight.T + bias` with weight (out_features, in_features)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        bound = 1 / math.sqrt(in_features) if in_features else 0.0
        self.weight = _weight((out_features, in_features), uniform_init(bound))
        self.bias = Parameter((out_features,), uniform_init(bound)) if bias else None

    def construct(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)


class _Conv(Module):
    rank: int

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size, stride=1, padding=0, dilation=1, groups: int = 1,
        bias: bool = True,
    ):  # fmt: skip
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = F._tuple(kernel_size, self.rank)
        self.stride = F._tuple(stride, self.rank)
        self.padding = F._tuple(padding, self.rank)
        self.dilation = F._tuple(dilation, self.rank)
        self.groups = groups
        bound = 1 / math.sqrt(in_channels // groups * math.prod(self.kernel_size))
        create = _weight if self.rank == 2 else Parameter
        self.weight = create((out_channels, in_channels // groups, *self.kernel_size), uniform_init(bound))
        self.bias = Parameter((out_channels,), uniform_init(bound)) if bias else None


class Conv1d(_Conv):
    """Input (N, C, L)."""

    rank = 1

    def construct(self, input: Tensor) -> Tensor:
        return F.conv1d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Conv2d(_Conv):
    """Input (N, C, H, W)."""

    rank = 2

    def construct(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Conv3d(_Conv):
    """Input (N, C, D, H, W)."""

    rank = 3

    def construct(self, input: Tensor) -> Tensor:
        return F.conv3d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class ConvTranspose2d(Module):
    """Transposed convolution with weight (in_channels, out_channels / groups, kh, kw)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size, stride=1, padding=0, output_padding=0, groups: int = 1,
        bias: bool = True, dilation=1,
    ):  # fmt: skip
        super().__init__()
        self.stride, self.padding, self.output_padding = stride, padding, output_padding
        self.groups, self.dilation = groups, dilation
        kernel_size = F._tuple(kernel_size, 2)
        bound = 1 / math.sqrt(out_channels // groups * math.prod(kernel_size))
        self.weight = Parameter((in_channels, out_channels // groups, *kernel_size), uniform_init(bound))
        self.bias = Parameter((out_channels,), uniform_init(bound)) if bias else None

    def construct(self, input: Tensor) -> Tensor:
        return F.conv_transpose2d(input, self.weight, self.bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation)


class Embedding(Module):
    """Rows of weight (num_embeddings, embedding_dim)."""

    def __init__(self, num_embeddings: int, embedding_dim: int):
        super().__init__()
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.weight = Parameter((num_embeddings, embedding_dim), normal_init())

    def construct(self, input: Tensor) -> Tensor:
        return F.embedding(input, self.weight)


class GroupNorm(Module):
    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True):
        super().__init__()
        self.num_groups = num_groups
        self.eps = eps
        self.weight = Parameter((num_channels,), ones_init) if affine else None
        self.bias = Parameter((num_channels,), _zeros) if affine else None

    def construct(self, input: Tensor) -> Tensor:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class LayerNorm(Module):
    def __init__(self, normalized_shape, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True):
        super().__init__()
        self.normalized_shape = F._tuple(normalized_shape, 1)
        self.eps = eps
        self.weight = Parameter(self.normalized_shape, ones_init) if elementwise_affine else None
        self.bias = Parameter(self.normalized_shape, _zeros) if elementwise_affine and bias else None

    def construct(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


class RMSNorm(Module):
    def __init__(self, normalized_shape, eps: float | None = None, elementwise_affine: bool = True):
        super().__init__()
        self.normalized_shape = F._tuple(normalized_shape, 1)
        self.eps = eps
        self.weight = Parameter(self.normalized_shape, ones_init) if elementwise_affine else None

    def construct(self, input: Tensor) -> Tensor:
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)


class BatchNorm2d(Module):
    """Inference only: normalises with the stored statistics."""

    def __init__(self, num_features: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = Parameter((num_features,), ones_init)
        self.bias = Parameter((num_features,), _zeros)
        self.running_mean = Parameter((num_features,), _zeros, requires_grad=False)
        self.running_var = Parameter((num_features,), ones_init, requires_grad=False)

    def construct(self, input: Tensor) -> Tensor:
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, self.eps)


class Dropout(Module):
    def __init__(self, p: float = 0.5):
        super().__init__()
        self.p = p

    def construct(self, input: Tensor) -> Tensor:
        return F.dropout(input, self.p, self.training)


class SiLU(Module):
    def construct(self, input: Tensor) -> Tensor:
        return F.silu(input)


class GELU(Module):
    def __init__(self, approximate: str = "none"):
        super().__init__()
        self.approximate = approximate

    def construct(self, input: Tensor) -> Tensor:
        return F.gelu(input, self.approximate)


class ReLU(Module):
    def construct(self, input: Tensor) -> Tensor:
        return F.relu(input)


class LeakyReLU(Module):
    def __init__(self, negative_slope: float = 0.01):
        super().__init__()
        self.negative_slope = negative_slope

    def construct(self, input: Tensor) -> Tensor:
        return F.leaky_relu(input, self.negative_slope)


class Mish(Module):
    def construct(self, input: Tensor) -> Tensor:
        return F.mish(input)


class Sigmoid(Module):
    def construct(self, input: Tensor) -> Tensor:
        return F.sigmoid(input)


class Tanh(Module):
    def construct(self, input: Tensor) -> Tensor:
        return F.tanh(input)


class AvgPool2d(Module):
    def __init__(self, kernel_size, stride=None, padding=0, ceil_mode: bool = False):
        super().__init__()
        self.kernel_size, self.stride, self.padding, self.ceil_mode = kernel_size, stride, padding, ceil_mode

    def construct(self, input: Tensor) -> Tensor:
        return F.avg_pool2d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode)


class Upsample(Module):
    def __init__(self, size=None, scale_factor=None, mode: str = "nearest", align_corners: bool | None = None):
        super().__init__()
        self.size, self.scale_factor, self.mode, self.align_corners = size, scale_factor, mode, align_corners

    def construct(self, input: Tensor) -> Tensor:
        return F.interpolate(input, self.size, self.scale_factor, self.mode, self.align_corners)
