"""The few things a step needs that NumPy arrays and MindSpore tensors spell differently."""

from typing import Any

import mindspore
import numpy as np

from ..core.errors import UnsupportedError
from ..core.random import randn_tensor
from .tables import RESIZE_MODES, resize_matrix

Array = Any
"""A NumPy array or a MindSpore tensor: what `step` is given is what it returns."""


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
    return values.astype(dtype or sample.dtype)


def randn_like(model_output: Array, generator: Any, dtype: Any = None) -> Array:
    """Standard normal noise of the shape and kind of `model_output`, in its dtype unless another is named."""
    noise = randn_tensor(model_output.shape, generator=generator, dtype=model_output.dtype if dtype is None else dtype)
    return noise.asnumpy() if isinstance(model_output, np.ndarray) else noise


def largest(values: Array, axis: int = -1) -> Array:
    """The largest numbers over an axis, which is kept."""
    # MindSpore's Tensor.max looks at a tensor on the host.
    return (values.max if isinstance(values, np.ndarray) else values.amax)(axis=axis, keepdims=True)


def dynamic_threshold(sample: Array, ratio: float, max_value: float) -> Array:
    """Clip each image of a predicted clean sample to its own `ratio` quantile of absolute values, and divide by it.

    The quantile is kept between 1 and `max_value` (arXiv 2205.11487, section 2.3).
    """
    flat = sample.astype("float32").reshape(sample.shape[0], -1)
    magnitudes = abs(flat)
    ordered = np.sort(magnitudes, axis=1) if isinstance(sample, np.ndarray) else magnitudes.sort(axis=1)[0]
    rank = np.float32(ratio) * np.float32(flat.shape[1] - 1)  # torch.quantile's rank is float32
    below, weight = int(rank), float(rank - int(rank))
    above = min(below + 1, flat.shape[1] - 1)
    low, high = ordered[:, below : below + 1], ordered[:, above : above + 1]
    scale = (low + weight * (high - low)).clip(1.0, max_value)
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
