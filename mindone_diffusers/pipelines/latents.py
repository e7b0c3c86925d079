"""The noise that denoising starts from."""

from typing import Any

import numpy as np
from mindspore import Tensor

from ..core.errors import ConfigError
from ..core.random import randn_tensor


def prepare_latents(
    shape: tuple[int, ...], dtype: Any, generator: Any = None, latents: Tensor | np.ndarray | None = None, init_noise_sigma: float = 1.0
) -> Tensor:
    """Latents of the scheduler's first noise level.

    Args:
        shape: (batch, channels, height, width).
        dtype: of the result.
        generator: draws them, or a list with one for each image.
        latents: standard normal numbers to use instead.
        init_noise_sigma: the scheduler's first noise level.

    Raises:
        ConfigError: a list of generators that is not as long as the batch.
    """
    check_generators(generator, shape[0])
    if latents is None:
        latents = randn_tensor(shape, generator=generator, dtype=dtype)
    elif not isinstance(latents, Tensor):
        latents = Tensor(latents)
    return latents.astype(dtype) * float(init_noise_sigma)


def check_shape(latents: Tensor | None, shape: tuple[int, ...]) -> None:
    if latents is not None and latents.shape != shape:
        raise ConfigError(f"latents has shape {latents.shape}; expected {shape}")


def check_generators(generator: Any, batch_size: int) -> None:
    if isinstance(generator, list) and len(generator) != batch_size:
        raise ConfigError(f"{len(generator)} generators for a batch of {batch_size} images: pass one for each image, or a single one")
