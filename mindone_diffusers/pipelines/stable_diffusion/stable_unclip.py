"""What the Stable unCLIP pipelines share (arXiv:2204.06125): a UNet whose class is the noised CLIP embedding of an image."""

from collections.abc import Callable
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor

from ...core.errors import ConfigError
from ...core.random import randn_tensor
from ...models.embeddings import get_timestep_embedding
from ...nn import functional as F
from ..denoising import denoise
from ..guided import check_callback_steps, check_size
from ..pipeline_utils import ImagePipelineOutput
from .base import StableDiffusionUncheckedBase


class StableUnCLIPBase(StableDiffusionUncheckedBase):
    """Base of the pipelines with an `image_normalizer`, the embeddings' statistics, and an `image_noising_scheduler`."""

    def _draw(
        self,
        noised: Tensor,
        timesteps: np.ndarray,
        tensors: dict[str, Any],
        step_kwargs: dict[str, Any],
        callback: Callable[[int, float, Tensor], None] | None,
        callback_steps: int,
        output_type: str,
        return_dict: bool,
    ) -> ImagePipelineOutput | tuple:
        """Images from the latents and embedded prompts in `tensors`; of `noised` embeddings of images, there is one for each."""
        labels = self._guided_batch(noised, F.zeros(noised.shape, noised.dtype))
        predict = self._predictor(control=lambda sample, t, tensors: {"class_labels": labels})
        latents = denoise(
            self, timesteps, len(timesteps) // self.scheduler.order, tensors, predict, step_kwargs,
            callback=callback, callback_steps=callback_steps,
        )  # fmt: skip
        return self._finish(*self._decode(latents, output_type, tensors["prompt_embeds"].dtype, None), return_dict)

    def noise_image_embeddings(self, image_embeds: Tensor, noise_level: int, noise: Tensor | None = None, generator: Any = None) -> Tensor:
        """Embeddings of images with noise added where they are normalised, and the embedding of its level appended.

        Args:
            image_embeds: (images, size).
            noise_level: a timestep of `image_noising_scheduler`.
            noise: standard normal numbers, (images, size).
            generator: draws them otherwise.

        Returns:
            (images, 2 * size).
        """
        if noise is None:
            noise = randn_tensor(image_embeds.shape, generator=generator, dtype=image_embeds.dtype)
        images, size = image_embeds.shape
        noised = self.image_noising_scheduler.add_noise(self.image_normalizer.scale(image_embeds), noise, [noise_level])
        noised = self.image_normalizer.unscale(noised)
        level = get_timestep_embedding(Tensor(np.full(images, noise_level), ms.float32), size, flip_sin_to_cos=True, downscale_freq_shift=0)
        return F.cat((noised, level.astype(noised.dtype)), 1)

    def _check_arguments(
        self,
        prompt: Any,
        height: int,
        width: int,
        callback_steps: int,
        noise_level: int,
        negative_prompt: Any,
        prompt_embeds: Tensor | None,
        negative_prompt_embeds: Tensor | None,
    ) -> None:
        """The part of `check_inputs` that both pipelines have."""
        check_size(height, width)
        check_callback_steps(callback_steps)
        self._check_prompts(prompt, None, negative_prompt, prompt_embeds, negative_prompt_embeds, None, None, None)
        if None not in (prompt, negative_prompt) and type(prompt) is not type(negative_prompt):
            raise TypeError(
                f"negative_prompt is a {type(negative_prompt).__name__} and prompt a {type(prompt).__name__}: pass two strings or two lists"
            )
        levels = self.image_noising_scheduler.config.num_train_timesteps
        if not 0 <= noise_level < levels:
            raise ConfigError(f"noise_level is {noise_level}; expected a number from 0 to {levels - 1}")
