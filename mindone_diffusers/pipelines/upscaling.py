"""What the upscalers share, whose UNet is shown a small image beside the latents (arXiv:2112.10752)."""

from typing import Any

import numpy as np
from mindspore import Tensor
from PIL import Image

from ..core.errors import ConfigError
from ..image_processor import VaeImageProcessor
from .guided import GuidedPipeline
from .latents import check_shape, prepare_latents


class UpscalingPipeline(GuidedPipeline):
    """Base of the upscalers."""

    def _check_small_images(self, image: Any, prompt: Any, prompt_embeds: Tensor | None) -> None:
        """Raises ConfigError for no images, and where they are no single Pillow image, unless there is one for each prompt."""
        if not isinstance(image, (Tensor, Image.Image, np.ndarray, list)):
            raise ConfigError(f"image is a {type(image).__name__}; expected a tensor, an array, a Pillow image, or a list of these")
        if isinstance(image, Image.Image):
            return
        prompts = prompt_embeds.shape[0] if prompt is None else 1 if isinstance(prompt, str) else len(prompt)
        images = len(image) if isinstance(image, list) or image.ndim == 4 else 1
        if prompts != images:
            raise ConfigError(f"{images} images for {prompts} prompts: pass as many")

    @property
    def image_processor(self) -> VaeImageProcessor:
        """The processor that fits the VAE."""
        return VaeImageProcessor(vae_scale_factor=self.vae_scale_factor, resample="bicubic")

    def prepare_latents(
        self,
        batch_size: int,
        num_channels_latents: int,
        height: int,
        width: int,
        dtype: Any,
        device: Any,
        generator: Any,
        latents: Tensor | None = None,
    ) -> Tensor:
        """Latents of height x width; see `latents.prepare_latents`. `device` is not used.

        Raises:
            ConfigError: `latents` of another shape.
        """
        shape = (batch_size, num_channels_latents, height, width)
        check_shape(latents, shape)
        return prepare_latents(shape, dtype, generator, latents, self.scheduler.init_noise_sigma)
