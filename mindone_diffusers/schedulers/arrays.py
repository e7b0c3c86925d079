"""The few things a step needs that NumPy arrays and MindSpore tensors spell differently, and which of them it computes with."""

import functools
import operator
from collections.abc import Callable, Iterable
from typing import Any

import mindspore
import numpy as np
from mindspore import Tensor

from ..backend.graph import is_differentiating
from ..backend.native import arrays as native
from ..backend.table import table
from ..core.errors import ShapeError, UnsupportedError
from ..core.outputs import BaseOutput
from ..core.random import randn_array, randn_tensor
from .tables import RESIZE_MODES, resize_matrix

Array = Any
"""A NumPy array or a MindSpore tensor: what `step` is given is what it returns."""

_FLOAT32 = np.dtype(np.float32)


def tensors_are_arrays() -> bool:
    """Whether tensors lie in the host's memory, and no gradient is wanted of what is done with them."""
    return table.name == "cpu" and not is_differentiating()


def numpy_on_cpu(method: Callable) -> Callable:
    """On the CPU, compute a scheduler's method on the NumPy arrays that share the given tensors' memory, and return such tensors.

    A MindSpore operator takes 30 to 60 microseconds to start there, one of NumPy's 1, and there is none for bfloat16.
    """

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not tensors_are_arrays():
            return method(self, *args, **kwargs)
        given: list[tuple[np.ndarray, Tensor]] = []
        args = [_shared_array(value, given) if type(value) in _TENSORS else value for value in args]
        for name, value in kwargs.items():
            if type(value) in _TENSORS:
                kwargs[name] = _shared_array(value, given)
        result = method(self, *args, **kwargs)
        # Samples in NumPy beside a timestep in a tensor stay what they are.
        few = bool(given) and given[0][0].ndim < 2 and _most_dimensions(array for array, _ in given) < 2
        if not given or few and _most_dimensions((*args, *kwargs.values())) > 1:
            return result
        return _as_tensors(result, given)

    return call


_TENSORS = (Tensor, mindspore.Parameter)  # isinstance takes ten times as long


def _most_dimensions(values: Iterable) -> int:
    """The most dimensions of the arrays among some values."""
    return max((value.ndim for value in values if type(value) is np.ndarray), default=0)


def _shared_array(tensor: Tensor, given: list[tuple[np.ndarray, Tensor]]) -> np.ndarray:
    """The array that shares a tensor's memory, also after the tensor was given another; both are noted in `given`.

    `asnumpy` makes one in the time of adding 32768 numbers. So a tensor that `_as_tensors` made keeps the one it was made of, and float32
    tensors are looked at where they lie, which `data_ptr` says having waited for what computes them.
    """
    array = kernel("shared_array")(tensor, mindspore.float32)
    array = tensor.asnumpy() if array is None else array
    given.append((array, tensor))
    return array


def _as_tensors(result: Any, given: list[tuple[np.ndarray, Tensor]]) -> Any:
    """A method's result with tensors for arrays; the given ones for theirs."""
    if isinstance(result, (np.ndarray, np.generic)):
        for array, tensor in given:
            if array is result:
                return tensor
        array = np.asarray(result, order="C")  # not ascontiguousarray, which makes a number a vector
        tensor = _from_numpy(array)
        tensor._shared_array = array
        return tensor
    if isinstance(result, BaseOutput):
        result.replace_each(lambda value: _as_tensors(value, given))
        return result
    if isinstance(result, (list, tuple)):
        return type(result)([_as_tensors(value, given) for value in result])
    return result


_from_numpy = getattr(Tensor.__base__, "from_numpy", Tensor.from_numpy)  # without a look at whether the array is in C order


@functools.cache
def kernel(name: str) -> Callable:
    """A function of `backend.native.arrays`; one that gives None if there is no library."""
    return native.functions().get(name, lambda *arguments: None)


def weighted_sum(*terms: Any, over: Any = 1.0) -> Array:
    """`(a * x + b * y + ...) / over` of the arguments a, x, b, y, ...: numbers, or what `per_sample` returns, and arrays.

    Nearly every step is one. float32 arrays on the host take one pass of a native kernel, which rounds as the operations would.

    Raises:
        ShapeError: the arrays' shapes do not fit each other.
    """
    first = terms[1]
    if type(first) is np.ndarray and first.dtype is _FLOAT32:
        result = kernel("weighted_sum")(np.empty_like(first), over, *terms)
        if result is not None:
            return result
    products = [
        array if type(weight) is int and weight == 1 else _in_dtype(weight, array) * array
        for weight, array in zip(terms[::2], terms[1::2], strict=True)
    ]
    try:
        total = functools.reduce(operator.add, products)
    except ValueError:
        shapes = " and ".join(dict.fromkeys(str(tuple(array.shape)) for array in products))
        raise ShapeError(f"sample, model_output, noise and the like have shapes {shapes}; expected one shape") from None
    return total if type(over) is float and over == 1 else total / _in_dtype(over, total)


def _in_dtype(number: Any, array: Array) -> Any:
    """A factor as PyTorch's numbers of dimension 0 are multiplied: rounded to a half-precision array's dtype."""
    half = isinstance(array, np.ndarray) and array.dtype.itemsize == 2
    return np.asarray(number).astype(array.dtype) if half and np.ndim(number) == 0 else number


def clamp(values: Array, lowest: float, highest: float) -> Array:
    """The numbers, limited to a range."""
    if not isinstance(values, np.ndarray):
        return values.clip(lowest, highest)
    result = kernel("clip")(np.empty_like(values), values, lowest, highest) if values.dtype is _FLOAT32 else None
    return values.clip(lowest, highest).astype(values.dtype, copy=False) if result is None else result


def on_host(values: Any) -> np.ndarray:
    """Timesteps given by the user (a number, a list, an array, a tensor) as a NumPy array."""
    return values.asnumpy() if hasattr(values, "asnumpy") else np.asarray(values)


def per_sample(values: np.ndarray, sample: Array) -> Array | float:
    """What to multiply samples by in a `weighted_sum`: the number, if there is one, or one a sample, in the samples' kind and dtype.

    Raises:
        ValueError: there are neither one nor as many values as samples.
    """
    if len(values) == 1:
        return float(values[0])
    if len(values) != sample.shape[0]:
        raise ValueError(f"{len(values)} timesteps for a batch of {sample.shape[0]}; expected one, or one a sample")
    return alike(np.asarray(values, dtype=np.float32).reshape(-1, *[1] * (len(sample.shape) - 1)), sample)


def alike(values: Array, sample: Array, dtype: str | None = None) -> Array:
    """Numbers in the sample's kind and its dtype unless another is named."""
    if isinstance(values, np.ndarray) != isinstance(sample, np.ndarray):
        values = Tensor.from_numpy(values) if isinstance(values, np.ndarray) else values.asnumpy()
    return cast(values, dtype or sample.dtype)


def cast(values: Array, dtype: Any) -> Array:
    """The values in a dtype: themselves if it is theirs."""
    if not isinstance(values, np.ndarray):
        return values if values.dtype is dtype else values.astype(dtype)
    return values if values.dtype is _NUMPY.get(dtype, dtype) else values.astype(dtype, copy=False)


_NUMPY = {"float32": _FLOAT32}  # looked up, because to compare a dtype with a name takes longer than to multiply a sample


def randn_like(model_output: Array, generator: Any, dtype: Any = None) -> Array:
    """Standard normal noise of the shape and kind of `model_output`, in its dtype unless another is named."""
    draw = randn_array if isinstance(model_output, np.ndarray) else randn_tensor
    return draw(model_output.shape, generator=generator, dtype=model_output.dtype if dtype is None else dtype)


def largest(values: Array, axis: int = -1) -> Array:
    """The largest numbers over an axis, which is kept."""
    # MindSpore's Tensor.max looks at a tensor on the host.
    return (values.max if isinstance(values, np.ndarray) else values.amax)(axis=axis, keepdims=True)


def quantile(values: Array, ratio: float) -> Array:
    """`torch.quantile(values, ratio, dim=1, keepdim=True)` of float32 numbers (rows, numbers)."""
    ordered = np.sort(values, axis=1) if isinstance(values, np.ndarray) else values.sort(axis=1)[0]
    rank = np.float32(ratio) * np.float32(values.shape[1] - 1)  # torch.quantile's rank is float32
    below, weight = int(rank), float(rank - int(rank))
    above = min(below + 1, values.shape[1] - 1)
    low, high = ordered[:, below : below + 1], ordered[:, above : above + 1]
    return low + weight * (high - low)


def dynamic_threshold(sample: Array, ratio: float, max_value: float) -> Array:
    """Clip each image of a predicted clean sample to its own `ratio` quantile of absolute values, and divide by it.

    The quantile is kept between 1 and `max_value` (arXiv 2205.11487, section 2.3).
    """
    flat = cast(sample, "float32").reshape(sample.shape[0], -1)
    scale = quantile(abs(flat), ratio).clip(1.0, max_value)
    return (flat / scale).clip(-1.0, 1.0).reshape(sample.shape).astype(sample.dtype)


def resize(sample: Array, size: list[int], mode: str) -> Array:
    """`torch.nn.functional.interpolate(sample, size=size, mode=mode)` of a float32 sample (batch, channels, *sizes).

    Every mode is separable, so each axis is multiplied by a small matrix.

    Raises:
        UnsupportedError: unknown mode, or one for another number of axes.
    """
    axes = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}
    if mode not in RESIZE_MODES or axes.get(mode, len(size)) != len(size):
        raise UnsupportedError(f"upscale_mode {mode!r} for {len(size)} axes; expected one of {', '.join(RESIZE_MODES)} with as many")
    for axis, length in enumerate(size, start=2):
        matrix = alike(resize_matrix(sample.shape[axis], length, mode).astype(np.float32), sample)
        sample = (sample.swapaxes(axis, -1) @ matrix).swapaxes(axis, -1)
    return sample
