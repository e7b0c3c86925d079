"""Changing an image as an instruction says, whatever the family: InstructPix2Pix (arXiv:2211.09800)."""

from typing import Any

from mindspore import Tensor

from ..nn import functional as F
from .guidance import instruct_pix2pix_guidance
from .guided import GuidedPipeline
from .images import repeat_to, retrieve_latents


class EditingPipeline(GuidedPipeline):
    """Base of the pipelines whose UNet is shown an image beside the latents (8 channels), and guided by instruction and image."""

    _image_guidance_scale: float

    def _guided_batch(self, positive: Tensor, negative: Tensor | None) -> Tensor:
        """For predictions with instruction and image, with the image alone, with neither."""
        return F.cat((positive, negative, negative), 0) if self.do_classifier_free_guidance else positive

    def _guide(self, noise_pred: Tensor, t: float) -> Tensor:
        if not self.do_classifier_free_guidance:
            return noise_pred
        return instruct_pix2pix_guidance(noise_pred, self.guidance_scale, self.image_guidance_scale, self.guidance_rescale)

    def prepare_image_latents(
        self,
        image: Tensor,
        batch_size: int,
        num_images_per_prompt: int,
        dtype: Any,
        device: Any,
        do_classifier_free_guidance: bool,
        generator: Any = None,
    ) -> Tensor:
        """What the UNet is shown of images.

        Args:
            image: (images, 3, height, width) in [-1, 1], or latents.
            batch_size: number of prompts.
            num_images_per_prompt: images of each.
            dtype: of the result.
            device: not used.
            do_classifier_free_guidance: three times, the last of them zeros, for guidance by instruction and image.
            generator: not used: the mode of the latents' distribution is taken.

        Raises:
            ConfigError: the images do not divide the batch.
        """
        latents = repeat_to(batch_size * num_images_per_prompt, self._latents_shown(image.astype(dtype)).astype(dtype), "images")
        return F.cat((latents, latents, F.zeros(latents.shape, dtype)), 0) if do_classifier_free_guidance else latents

    def _latents_shown(self, image: Tensor) -> Tensor:
        """The latents of images, not scaled; of latents, those themselves."""
        if image.shape[1] == self.vae.config.latent_channels:
            return image
        return retrieve_latents(self.vae.encode(image.astype(self.vae.dtype)), sample_mode="argmax")

    @property
    def image_guidance_scale(self) -> float:
        return self._image_guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        return self.guidance_scale > 1.0 and self.image_guidance_scale >= 1.0


def edited_image(tensors: dict[str, Any]) -> tuple[Tensor]:
    """What the UNet takes beside the latents."""
    return (tensors["image_latents"],)
