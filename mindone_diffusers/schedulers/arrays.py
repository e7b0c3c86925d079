"""The few things a step needs that NumPy arrays and MindSpore tensors spell differently, and which of them it computes with."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import mindspore
import numpy as np
from mindspore import Tensor
from mindspore.common.api import _pynative_executor

from ..backend.table import table
from ..core.errors import UnsupportedError
from ..core.random import randn_array, randn_tensor
from .tables import RESIZE_MODES, resize_matrix

Array = Any
"""A NumPy array or a MindSpore tensor: what `step` is given is what it returns."""


def tensors_are_arrays() -> bool:
    """Whether tensors lie in the host's memory, and no gradient is wanted of what is done with them."""
    return table.name == "cpu" and not _pynative_executor.grad_flag()


def numpy_on_cpu(method: Callable) -> Callable:
    """On the CPU, compute a scheduler's method on the NumPy arrays that share the given tensors' memory, and return such tensors.

    A MindSpore operator takes 30 to 60 microseconds to start there, one of NumPy's 1. NumPy has no bfloat16: that stays MindSpore's.
    """

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not tensors_are_arrays():
            return method(self, *args, **kwargs)
        pairs: list[tuple[np.ndarray, Tensor]] = []

        def view(value: Any) -> Any:
            if isinstance(value, Tensor):
                array = _shared_array(value)
                pairs.append((array, value))
                return array
            return value

        arrays = [view(value) for value in args]
        named = {name: view(value) for name, value in kwargs.items()}
        own = all(array.dtype.num < _FOREIGN for array, _ in pairs)
        if not pairs or not own or _has_batch(args) or _has_batch(kwargs.values()):  # samples in NumPy beside a timestep in a tensor
            return method(self, *args, **kwargs)
        return _as_tensors(method(self, *arrays, **named), pairs)

    return call


def _shared_array(tensor: Tensor) -> np.ndarray:
    """The array that shares a tensor's memory: of a tensor that `_as_tensors` made, and nothing has written to, the one it was made of.

    Writing to a tensor gives it other memory (a test checks that), and `asnumpy` takes as long as a product of 32768 numbers.
    """
    address, array = tensor.__dict__.get("_shared_array", (None, None))
    return array if address is not None and tensor.data_ptr() == address else tensor.asnumpy()


_FOREIGN = 256  # the numbers of dtypes that NumPy does not have itself start here


def _has_batch(values: Iterable[Any]) -> bool:
    return any(type(value) is np.ndarray and value.ndim > 1 for value in values)


def _as_tensors(result: Any, pairs: list[tuple[np.ndarray, Tensor]]) -> Any:
    """A method's result with tensors for arrays; the given ones for theirs."""
    if isinstance(result, (np.ndarray, np.generic)):
        for array, tensor in pairs:
            if array is result:
                return tensor
        array = np.asarray(result, order="C")  # not ascontiguousarray, which makes a number a vector
        tensor = Tensor.from_numpy(array)
        tensor._shared_array = (tensor.data_ptr(), array)
        return tensor
    if isinstance(result, dict):
        for name, value in result.items():
            result[name] = _as_tensors(value, pairs)
    elif isinstance(result, (list, tuple)):
        return type(result)([_as_tensors(value, pairs) for value in result])
    return result


def on_host(values: Any) -> np.ndarray:
    """Timesteps given by the user (a number, a list, an array, a tensor) as a NumPy array."""
    return values.asnumpy() if hasattr(values, "asnumpy") else np.asarray(values)


def per_sample(values: np.ndarray, sample: Array, dtype: str | None = None) -> Array:
    """One coefficient a sample, in the sample's kind and its dtype unless another is named, shaped to multiply it.

    Raises:
        ValueError: there are neither one nor as many values as samples.
    """
    if len(values) not in (1, sample.shape[0]):
        raise ValueError(f"{len(values)} timesteps for a batch of {sample.shape[0]}; expected one, or one a sample")
    return alike(np.asarray(values, dtype=np.float32).reshape(-1, *[1] * (len(sample.shape) - 1)), sample, dtype)


def alike(values: Array, sample: Array, dtype: str | None = None) -> Array:
    """Numbers in the sample's kind and its dtype unless another is named."""
    if isinstance(values, np.ndarray) and not isinstance(sample, np.ndarray):
        values = mindspore.Tensor.from_numpy(values)
    return cast(values, dtype or sample.dtype)


def cast(values: Array, dtype: Any) -> Array:
    """The values in a dtype: themselves if it is theirs."""
    return values.astype(dtype, copy=False) if isinstance(values, np.ndarray) else values.astype(dtype)


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
