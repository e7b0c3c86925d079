"""Images that a pipeline starts from, and their latents."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mindspore as ms
from mindspore import Tensor

from ..core.errors import ConfigError
from ..core.random import randn_tensor
from ..nn import functional as F
from .latents import check_generators

Encode = Callable[[Tensor, Any], Tensor]
"""From images and a generator to scaled latents: `encode_image` with its autoencoder."""


def retrieve_latents(encoder_output: Any, generator: Any = None, sample_mode: str = "sample") -> Tensor:
    """The latents of an autoencoder's output: a draw of their distribution ("sample"), its mode ("argmax"), or what a
    deterministic autoencoder gives.

    Raises:
        AttributeError: it holds none.
    """
    if hasattr(encoder_output, "latent_dist") and sample_mode in ("sample", "argmax"):
        return encoder_output.latent_dist.sample(generator) if sample_mode == "sample" else encoder_output.latent_dist.mode()
    if hasattr(encoder_output, "latents"):
        return encoder_output.latents
    raise AttributeError(f"a {type(encoder_output).__name__} holds no latents for sample_mode={sample_mode!r}")


@contextmanager
def upcast(vae: Any) -> Iterator[None]:
    """Meanwhile, a float16 autoencoder is float32 if its config says that it overflows in float16. Compiled, it stays float32: to cast it
    back would be to compile it for every image."""
    dtype = vae.dtype
    needed = dtype == ms.float16 and vae.config.get("force_upcast")
    if needed:
        vae.to(ms.float32)
    try:
        yield
    finally:
        if needed and not vae.runs_compiled:
            vae.to(dtype)


def scale_latents(vae: Any, latents: Tensor) -> Tensor:
    """An autoencoder's latents as a UNet sees them: with the config's mean and standard deviation of each channel, if it has them, and
    times `scaling_factor`."""
    statistics = _statistics(vae, latents)
    if statistics is None:
        return latents * vae.config.scaling_factor
    return (latents - statistics[0]) * vae.config.scaling_factor / statistics[1]


def unscale_latents(vae: Any, latents: Tensor) -> Tensor:
    """The opposite of `scale_latents`."""
    statistics = _statistics(vae, latents)
    if statistics is None:
        return latents / vae.config.scaling_factor
    return latents * statistics[1] / vae.config.scaling_factor + statistics[0]


def _statistics(vae: Any, latents: Tensor) -> tuple[Tensor, Tensor] | None:
    values = vae.config.get("latents_mean"), vae.config.get("latents_std")
    return None if None in values else tuple(Tensor(value, latents.dtype).reshape((1, -1, 1, 1)) for value in values)


def encode_image(vae: Any, image: Tensor, generator: Any = None, sample_mode: str = "sample") -> Tensor:
    """Scaled latents of images (batch, 3, height, width) in [-1, 1]; of latents, those themselves.

    Args:
        vae: the autoencoder.
        image: images, or latents, which are known by their channels.
        generator: draws from the latents' distributions, or a list with at least one for each image.
        sample_mode: see `retrieve_latents`.
    """
    if image.shape[1] == vae.config.latent_channels:
        return image
    if isinstance(generator, list):
        generator = generator[: image.shape[0]]
    return scale_latents(vae, retrieve_latents(vae.encode(image.astype(vae.dtype)), generator, sample_mode))


def repeat_to(batch_size: int, tensor: Tensor, what: str) -> Tensor:
    """The tensor, its whole batch repeated until it is as long as `batch_size`.

    Raises:
        ConfigError: `batch_size` is not a multiple of its length.
    """
    if batch_size % tensor.shape[0]:
        raise ConfigError(f"{tensor.shape[0]} {what} for a batch of {batch_size}: pass one, or a number that divides it")
    return F.cat((tensor,) * (batch_size // tensor.shape[0]), 0) if tensor.shape[0] < batch_size else tensor


def latents_of_image(
    encode: Encode,
    scheduler: Any,
    image: Tensor,
    timestep: Any,
    batch_size: int,
    dtype: Any,
    generator: Any = None,
    add_noise: bool = True,
) -> Tensor:
    """Latents to change an image from.

    Args:
        encode: from images to latents.
        scheduler: adds the noise.
        image: (images, 3, height, width) in [-1, 1], or latents (images, 4, h, w). They are repeated until they are as many as are drawn.
        timestep: how noisy: one of the scheduler's timesteps, or one for each image drawn.
        batch_size: images to draw.
        dtype: of the result.
        generator: draws from the latents' distribution, then the noise; or a list with one for each image drawn.
        add_noise: whether there is to be noise.

    Raises:
        ConfigError: the images do not divide the batch, or a list of generators is not as long as the batch.
    """
    check_generators(generator, batch_size)
    image = image.astype(dtype)
    if isinstance(generator, list):
        image = repeat_to(batch_size, image, "images")  # each with its own draw
    latents = repeat_to(batch_size, encode(image, generator), "images").astype(dtype)
    if not add_noise:
        return latents
    return scheduler.add_noise(latents, randn_tensor(latents.shape, generator=generator, dtype=dtype), timestep)


def check_strength(strength: float) -> None:
    if not 0 <= strength <= 1:
        raise ConfigError(f"strength is {strength}; expected a number from 0 to 1")


def check_steps_left(steps: int, strength: float) -> None:
    if steps < 1:
        raise ConfigError(f"strength {strength} leaves none of the steps: pass a larger one, or more steps")


def check_steps(strength: float, num_inference_steps: int) -> None:
    check_strength(strength)
    if not isinstance(num_inference_steps, int) or num_inference_steps <= 0:
        raise ConfigError(f"num_inference_steps is {num_inference_steps!r}; expected a positive integer")
