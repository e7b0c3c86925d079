"""Images that resemble an image, under a prompt, with Stable unCLIP (arXiv:2204.06125)."""

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
from ...text_encoders.clip import CLIPTextModel, CLIPVisionModelWithProjection
from ..clip_images import embed_images
from ..pipeline_utils import ImagePipelineOutput
from ..schedule import retrieve_timesteps
from .stable_unclip import StableUnCLIPBase
from .stable_unclip_image_normalizer import StableUnCLIPImageNormalizer

if TYPE_CHECKING:
    from transformers import CLIPImageProcessor, CLIPTokenizer


class StableUnCLIPImg2ImgPipeline(StableUnCLIPBase):
    """Draws images of prompts that resemble an image, whose noised CLIP embedding is the UNet's class.

    Args:
        feature_extractor: prepares images for `image_encoder`.
        image_encoder: embeds them.
        image_normalizer: the embeddings' statistics.
        image_noising_scheduler: adds noise to the embeddings.

    The other components are `StableDiffusionBase`'s.
    """

    model_cpu_offload_seq = "text_encoder->image_encoder->unet->vae"
    _exclude_from_cpu_offload = ["image_normalizer"]

    def __init__(
        self,
        feature_extractor: "CLIPImageProcessor",
        image_encoder: CLIPVisionModelWithProjection,
        image_normalizer: StableUnCLIPImageNormalizer,
        image_noising_scheduler: KarrasDiffusionSchedulers,
        tokenizer: "CLIPTokenizer",
        text_encoder: CLIPTextModel,
        unet: UNet2DConditionModel,
        scheduler: KarrasDiffusionSchedulers,
        vae: AutoencoderKL,
    ):
        self.register_modules(
            feature_extractor=feature_extractor, image_encoder=image_encoder, image_normalizer=image_normalizer,
            image_noising_scheduler=image_noising_scheduler, tokenizer=tokenizer, text_encoder=text_encoder, unet=unet,
            scheduler=scheduler, vae=vae,
        )  # fmt: skip

    def __call__(
        self,
        image: Image.Image | list[Image.Image] | Tensor | None = None,
        prompt: str | list[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 20,
        guidance_scale: float = 10,
        negative_prompt: str | list[str] | None = None,
        num_images_per_prompt: int | None = 1,
        eta: float = 0.0,
        generator: Any = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        callback: Callable[[int, float, Tensor], None] | None = None,
        callback_steps: int = 1,
        cross_attention_kwargs: dict[str, Any] | None = None,
        noise_level: int = 0,
        image_embeds: Tensor | None = None,
        clip_skip: int | None = None,
    ) -> ImagePipelineOutput | tuple:
        """Draw images; arguments that are not named here are `StableDiffusionPipeline`'s.

        Args:
            image: what to resemble: a Pillow image for all prompts, or as many images as prompts, in a list or as a tensor as the feature
                extractor makes them.
            prompt: what to draw: one text, or a list; empty by default.
            latents: what to start from, with the scheduler's first noise level: here they are not scaled.
            callback: called as `callback(step, timestep, latents)`, with schedulers of second order once for the two parts of a step
                (PyTorch diffusers calls it for each).
            callback_steps: at every how many steps.
            noise_level: how much noise the image's embedding gets, a timestep of `image_noising_scheduler`.
            image_embeds: embeddings instead of an image, (prompts, size).
            clip_skip: has no effect, as in PyTorch diffusers.

        Raises:
            ConfigError: arguments that do not fit together; see `check_inputs`.
        """
        default = self._default_size()
        height, width = height or default[0], width or default[1]
        if prompt is None and prompt_embeds is None:
            prompt = [""] * len(image) if isinstance(image, list) else ""
        self._begin(guidance_scale, None, cross_attention_kwargs, None, [])
        self.check_inputs(
            prompt, image, height, width, callback_steps, noise_level, negative_prompt, prompt_embeds, negative_prompt_embeds, image_embeds
        )
        check_output_type(output_type)

        tensors, images = self._embed(prompt, negative_prompt, num_images_per_prompt, prompt_embeds, negative_prompt_embeds)
        dtype = tensors["prompt_embeds"].dtype
        if image_embeds is None:
            image_embeds = embed_images(self.image_encoder, self.feature_extractor, image)
        noised = self.noise_image_embeddings(image_embeds, noise_level, generator=generator)
        noised = F.repeat_interleave(noised, images if isinstance(image, Image.Image) else num_images_per_prompt, 0)
        timesteps, _ = retrieve_timesteps(self.scheduler, num_inference_steps)
        if latents is None:
            latents = self.prepare_latents(images, self.unet.config.in_channels, height, width, dtype, self.device, generator)
        tensors["latents"] = latents
        step_kwargs = self.prepare_extra_step_kwargs(generator, eta)
        return self._draw(noised, timesteps, tensors, step_kwargs, callback, callback_steps, output_type, return_dict)

    def check_inputs(
        self,
        prompt: Any,
        image: Any,
        height: int,
        width: int,
        callback_steps: int,
        noise_level: int,
        negative_prompt: Any = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        image_embeds: Tensor | None = None,
    ) -> None:
        """Check the arguments of `__call__`.

        Raises:
            ConfigError: a size that is not a multiple of 8, both or neither of a prompt and its embeddings or of an image and its
                embedding, one of another type, embeddings of different shapes, or a noise level that the scheduler does not have.
            TypeError: prompt and negative prompt are not both strings or both lists.
        """
        self._check_arguments(prompt, height, width, callback_steps, noise_level, negative_prompt, prompt_embeds, negative_prompt_embeds)
        if (image is None) == (image_embeds is None):
            raise ConfigError("`image` and `image_embeds` are both or neither given: pass one of them")
        if not isinstance(image, (Tensor, Image.Image, list, type(None))):
            raise ConfigError(f"image is a {type(image).__name__}; expected a Pillow image, a list of them, or a tensor")
