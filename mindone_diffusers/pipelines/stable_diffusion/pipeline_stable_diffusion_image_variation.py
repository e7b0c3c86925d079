"""Variations of an image with Stable Diffusion 1, guided by its CLIP embedding in place of a prompt's (arXiv:2112.10752)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mindspore import Tensor
from PIL import Image

from ...core.errors import ConfigError
from ...image_processor import check_output_type
from ...models.autoencoders.autoencoder_kl import AutoencoderKL
from ...models.unets.unet_2d_condition import UNet2DConditionModel
from ...nn import functional as F
from ...schedulers.scheduling_utils import KarrasDiffusionSchedulers
from ...text_encoders.clip import CLIPVisionModelWithProjection
from ..clip_images import embed_images
from ..denoising import denoise
from ..guided import check_callback_steps, check_size
from ..schedule import retrieve_timesteps
from .base import StableDiffusionBase, correct_early_configs
from .pipeline_output import StableDiffusionPipelineOutput
from .safety_checker import StableDiffusionSafetyChecker

if TYPE_CHECKING:
    from transformers import CLIPImageProcessor


class StableDiffusionImageVariationPipeline(StableDiffusionBase):
    """Draws images that resemble an image. There are no prompts.

    Args:
        image_encoder: embeds the image for the UNet.
        feature_extractor: prepares images for it, and for the safety checker.

    The other components are `StableDiffusionBase`'s.
    """

    model_cpu_offload_seq = "image_encoder->unet->vae"
    _optional_components = ["safety_checker"]
    text_encoder = tokenizer = None

    def __init__(
        self,
        vae: AutoencoderKL,
        image_encoder: CLIPVisionModelWithProjection,
        unet: UNet2DConditionModel,
        scheduler: KarrasDiffusionSchedulers,
        safety_checker: StableDiffusionSafetyChecker,
        feature_extractor: "CLIPImageProcessor",
        requires_safety_checker: bool = True,
    ):
        correct_early_configs(None, unet, {})
        self._set_up(
            requires_safety_checker, vae=vae, image_encoder=image_encoder, unet=unet, scheduler=scheduler, safety_checker=safety_checker,
            feature_extractor=feature_extractor,
        )  # fmt: skip

    def __call__(
        self,
        image: Image.Image | list[Image.Image] | Tensor,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
        num_images_per_prompt: int | None = 1,
        eta: float = 0.0,
        generator: Any = None,
        latents: Tensor | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        callback: Callable[[int, float, Tensor], None] | None = None,
        callback_steps: int = 1,
    ) -> StableDiffusionPipelineOutput | tuple:
        """Draw images; arguments that are not named here are `StableDiffusionPipeline`'s.

        Args:
            image: what to vary: Pillow images, or a tensor as the feature extractor makes them.
            guidance_scale: how strictly to keep to the image; there is guidance above 1.
            num_images_per_prompt: variations of each image.
            callback: called as `callback(step, timestep, latents)` when the progress bar goes on.
            callback_steps: at every how many steps.

        Raises:
            ConfigError: arguments that do not fit together; see `check_inputs`.
        """
        default = self._default_size()
        height, width = height or default[0], width or default[1]
        self._begin(guidance_scale, None, None, None, [])
        self.check_inputs(image, height, width, callback_steps)
        check_output_type(output_type)

        embeds = embed_images(self.image_encoder, self.feature_extractor, image)[:, None]
        embeds = F.repeat_interleave(embeds, num_images_per_prompt, 0)
        images, dtype = embeds.shape[0], embeds.dtype
        embeds = self._guided_batch(embeds, F.zeros(embeds.shape, dtype))
        tensors = {"prompt_embeds": embeds, "w_embedding": self._scale_embedding(images, dtype)}
        timesteps, num_inference_steps = retrieve_timesteps(self.scheduler, num_inference_steps)
        tensors["latents"] = self.prepare_latents(
            images, self.unet.config.in_channels, height, width, dtype, self.device, generator, latents
        )
        latents = denoise(
            self, timesteps, num_inference_steps, tensors, self._predictor(), self.prepare_extra_step_kwargs(generator, eta),
            callback=callback, callback_steps=callback_steps,
        )  # fmt: skip
        return self._finish(*self._decode(latents, output_type, dtype, None), return_dict)

    def check_inputs(self, image: Any, height: int, width: int, callback_steps: int) -> None:
        """Check the arguments of `__call__`.

        Raises:
            ConfigError: an image of another type, or a size that is not a multiple of 8.
        """
        if not isinstance(image, (Tensor, Image.Image, list)):
            raise ConfigError(f"image is a {type(image).__name__}; expected a Pillow image, a list of them, or a tensor")
        check_size(height, width)
        check_callback_steps(callback_steps)
