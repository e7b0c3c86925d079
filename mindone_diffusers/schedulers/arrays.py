"""The few things a step needs that NumPy arrays and MindSpore tensors spell differently."""

from typing import Any

import mindspore
import numpy as np

from ..core.random import randn_tensor

Array = Any
"""A NumPy array or a MindSpore tensor: what `step` is given is what it returns."""


def on_host(values: Any) -> np.ndarray:
    """Timesteps given by the user (a number, a list, an array, a tensor) as a NumPy array."""
    return values.asnumpy() if hasattr(values, "asnumpy") else np.asarray(values)


def per_sample(values: np.ndarray, sample: Array) -> Array:
    """One coefficient a sample, in the sample's kind and dtype, shaped to multiply it.

    Raises:
        ValueError: there are neither one nor as many values as samples.
    """
    if len(values) not in (1, sample.shape[0]):
        raise ValueError(f"{len(values)} timesteps for a batch of {sample.shape[0]}; expected one, or one a sample")
    values = np.asarray(values, dtype=np.float32).reshape(-1, *[1] * (len(sample.shape) - 1))
    if isinstance(sample, np.ndarray):
        return values.astype(sample.dtype)
    return mindspore.Tensor.from_numpy(values).astype(sample.dtype)


def randn_like(model_output: Array, generator: Any, dtype: Any = None) -> Array:
    """Standard normal noise of the shape and kind of `model_output`, in its dtype unless another is named."""
    noise = randn_tensor(model_output.shape, generator=generator, dtype=model_output.dtype if dtype is None else dtype)
    return noise.asnumpy() if isinstance(model_output, np.ndarray) else noise


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
