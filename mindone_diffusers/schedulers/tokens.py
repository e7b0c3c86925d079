"""What the samplers of discrete tokens share: the arrays' methods that NumPy and MindSpore spell differently, and random draws.

Random numbers are drawn on the host and moved to the sample's device; nothing is read back from it.
"""

import math
from typing import Any

import numpy as np

from ..core.dtypes import dtype_name
from ..core.errors import ConfigError
from ..core.random import random_array, random_integers
from .arrays import Array, alike, cast, clamp, kernel, largest
from .scheduling_utils import SchedulerMixin

LARGEST = {
    "float16": 65504.0,
    "bfloat16": (2 - 2**-7) * 2.0**127,
    "float32": float(np.finfo(np.float32).max),
    "float64": float(np.finfo(np.float64).max),
}
"""The largest number of each floating-point dtype."""


def exp(values: Array) -> Array:
    return np.exp(values) if isinstance(values, np.ndarray) else values.exp()


def log(values: Array) -> Array:
    return np.log(values) if isinstance(values, np.ndarray) else values.log()


def where(condition: Array, chosen: Array, other: Array | float) -> Array:
    """`chosen` where the condition holds, else `other`, in the dtype of `chosen`."""
    if isinstance(condition, np.ndarray):
        return np.where(condition, chosen, other).astype(chosen.dtype)
    return chosen.where(condition, other).astype(chosen.dtype)


def gather(values: Array, indices: Array) -> Array:
    """Values at indices along the last axis."""
    if isinstance(values, np.ndarray):
        return np.take_along_axis(values, indices, axis=-1)
    return values.gather(-1, indices)


def order(values: Array, descending: bool = False) -> Array:
    """Indices that sort the last axis, the first of equals first."""
    if isinstance(values, np.ndarray):
        return np.argsort(-values if descending else values, axis=-1, kind="stable")
    return values.argsort(dim=-1, descending=descending, stable=True)


def at(values: Array, tokens: Array) -> Array:
    """The value of each token, from values of shape (*tokens.shape, classes)."""
    return gather(values, tokens[..., None])[..., 0]


def one_hot(tokens: Array, classes: int) -> Array:
    """Booleans of shape (*tokens.shape, classes)."""
    return tokens[..., None] == alike(np.arange(classes), tokens)


def log_sum_exp(values: Array, axis: int = -1) -> Array:
    """The logarithm of the sum of exponentials over an axis, which is kept."""
    peak = largest(values, axis)
    return peak + log(exp(values - peak).sum(axis=axis, keepdims=True))


def log_add_exp(values: Array, value: float) -> Array:
    """log(exp(values) + exp(value))."""
    return clamp(values, value, math.inf) + log(1 + exp(-abs(values - value)))


def softmax(logits: Array) -> Array:
    """Probabilities in float32."""
    logits = cast(logits, "float32")
    if isinstance(logits, np.ndarray) and (result := kernel("softmax")(np.empty_like(logits), logits)) is not None:
        return result
    powers = exp(logits - largest(logits))
    return powers / powers.sum(axis=-1, keepdims=True)


def uniform(shape: tuple[int, ...], generator: Any, like: Array, dtype: Any = "float32") -> Array:
    """Numbers in [0, 1), of the kind of `like`."""
    return alike(random_array("uniform", shape, generator, dtype), like, dtype_name(dtype))


def gumbel(shape: tuple[int, ...], generator: Any, like: Array, least: float, dtype: Any = "float32") -> Array:
    """Gumbel noise, -log(-log(u)), of uniform numbers u that are at least `least`."""
    return -log(-log(clamp(uniform(shape, generator, like, dtype), least, math.inf)))


def random_tokens(classes: int, sample: Array, generator: Any) -> Array:
    """Tokens of equal probability, of the sample's shape."""
    return alike(random_integers(0, classes, sample.shape, generator), sample)


def categorical(probabilities: Array, generator: Any) -> Array:
    """One int64 class from each distribution over the last axis, by the exponential race that is `torch.multinomial(..., 1)`.

    The class with the smallest exponential number divided by its probability wins. With the same numbers (`core.random`) the classes are
    PyTorch's, unless two of them finish closer than the probabilities' rounding.
    """
    noise = alike(random_array("exponential", probabilities.shape, generator, probabilities.dtype), probabilities)
    return (probabilities / noise).argmax(axis=-1)


def tempered(logits: Array, temperature: float) -> Array:
    """Logits divided by the temperature, in their own dtype by one rounding."""
    return cast(cast(logits, "float32") / temperature, logits.dtype)


def sample_tokens(logits: Array, temperature: float, generator: Any) -> tuple[Array, Array]:
    """A class from each row of logits, the likeliest at temperature 0, and its probability at temperature 1.

    Raises:
        ConfigError: a negative temperature.
    """
    check_temperature(temperature)
    probabilities = softmax(logits)
    if temperature == 0:
        tokens = logits.argmax(axis=-1)
    else:
        tokens = categorical(probabilities if temperature == 1 else softmax(cast(logits, "float32") / temperature), generator)
    return tokens, at(probabilities, tokens)


class CountedSteps(SchedulerMixin):
    """Schedulers whose timesteps are the steps' numbers, 0, 1, ..."""

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Choose how many steps there are; `device` is ignored.

        Raises:
            ConfigError: `num_inference_steps` is not positive.
        """
        check_steps(num_inference_steps)
        self.num_inference_steps = num_inference_steps
        self.timesteps = np.arange(num_inference_steps)


def check_temperature(temperature: float) -> None:
    if temperature < 0:
        raise ConfigError(f"temperature is {temperature}; expected 0 (the likeliest token) or more")


def check_steps(num_inference_steps: int) -> None:
    if num_inference_steps <= 0:
        raise ConfigError(f"num_inference_steps is {num_inference_steps}; expected 1 or more")
