"""Text to image under a control image with Stable Diffusion XL and T2I-Adapters (arXiv:2302.08453)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mindspore import Tensor

from ...image_processor import PipelineImageInput, check_output_type
from ...models.adapter import MultiAdapter, T2IAdapter
from ...models.autoencoders.autoencoder_kl import AutoencoderKL
from ...models.unets.unet_2d_condition import UNet2DConditionModel
from ...schedulers.scheduling_utils import KarrasDiffusionSchedulers
from ...text_encoders.clip import CLIPTextModel, CLIPTextModelWithProjection, CLIPVisionModelWithProjection
from ..denoising import denoise
from ..guidance import rescale_noise_cfg  # noqa: F401  (where PyTorch diffusers has it)
from ..schedule import end_early, retrieve_timesteps
from ..stable_diffusion_xl.base import StableDiffusionXLTextBase
from ..stable_diffusion_xl.pipeline_output import StableDiffusionXLPipelineOutput
from .base import AdapterPipeline, one_adapter

if TYPE_CHECKING:
    from transformers import CLIPImageProcessor, CLIPTokenizer


class StableDiffusionXLAdapterPipeline(AdapterPipeline, StableDiffusionXLTextBase):
    """Draws images of prompts that keep to control images, whose features the UNet adds to its own.

    Args:
        adapter: makes the features: a `T2IAdapter`, or a `MultiAdapter` or a list of several (which PyTorch diffusers does not take).

    The other components are `StableDiffusionXLBase`'s. There is no watermark.
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        text_encoder_2: CLIPTextModelWithProjection,
        tokenizer: "CLIPTokenizer",
        tokenizer_2: "CLIPTokenizer",
        unet: UNet2DConditionModel,
        adapter: T2IAdapter | MultiAdapter | list[T2IAdapter],
        scheduler: KarrasDiffusionSchedulers,
        force_zeros_for_empty_prompt: bool = True,
        feature_extractor: "CLIPImageProcessor | None" = None,
        image_encoder: CLIPVisionModelWithProjection | None = None,
    ):
        self._set_up(
            force_zeros_for_empty_prompt, False, vae=vae, text_encoder=text_encoder, text_encoder_2=text_encoder_2, tokenizer=tokenizer,
            tokenizer_2=tokenizer_2, unet=unet, adapter=one_adapter(adapter), scheduler=scheduler, feature_extractor=feature_extractor,
            image_encoder=image_encoder,
        )  # fmt: skip

    def __call__(
        self,
        prompt: str | list[str] | None = None,
        prompt_2: str | list[str] | None = None,
        image: PipelineImageInput | list[PipelineImageInput] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        timesteps: list[int] | None = None,
        sigmas: list[float] | None = None,
        denoising_end: float | None = None,
        guidance_scale: float = 5.0,
        negative_prompt: str | list[str] | None = None,
        negative_prompt_2: str | list[str] | None = None,
        num_images_per_prompt: int | None = 1,
        eta: float = 0.0,
        generator: Any = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        ip_adapter_image: PipelineImageInput | None = None,
        ip_adapter_image_embeds: list[Tensor] | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        callback: Callable[[int, float, Tensor], None] | None = None,
        callback_steps: int = 1,
        cross_attention_kwargs: dict[str, Any] | None = None,
        guidance_rescale: float = 0.0,
        original_size: tuple[int, int] | None = None,
        crops_coords_top_left: tuple[int, int] = (0, 0),
        target_size: tuple[int, int] | None = None,
        negative_original_size: tuple[int, int] | None = None,
        negative_crops_coords_top_left: tuple[int, int] = (0, 0),
        negative_target_size: tuple[int, int] | None = None,
        adapter_conditioning_scale: float | list[float] = 1.0,
        adapter_conditioning_factor: float = 1.0,
        clip_skip: int | None = None,
    ) -> StableDiffusionXLPipelineOutput | tuple:
        """Draw images; arguments that are not named here are `StableDiffusionXLPipeline`'s and `StableDiffusionAdapterPipeline`'s.

        Args:
            return_dict: return an output, else a tuple; of latents too, of which PyTorch diffusers always returns an output.
            adapter_conditioning_factor: the part of the steps, from the first on, in which the features are added, from 0 to 1.

        Raises:
            ConfigError: arguments that do not fit together; see `check_inputs`.
            ValueError: not one image and one scale for each adapter of a `MultiAdapter`.
            UnsupportedError: IP-Adapter arguments.
        """
        height, width = self._default_height_width(height, width, image)
        self._begin(guidance_scale, clip_skip, cross_attention_kwargs, None, [], guidance_rescale)
        self.check_inputs(
            prompt, prompt_2, height, width, callback_steps, negative_prompt, negative_prompt_2, prompt_embeds, negative_prompt_embeds,
            pooled_prompt_embeds, negative_pooled_prompt_embeds, ip_adapter_image, ip_adapter_image_embeds,
        )  # fmt: skip
        check_output_type(output_type)

        tensors, images = self._embed(
            prompt, prompt_2, negative_prompt, negative_prompt_2, num_images_per_prompt, prompt_embeds, negative_prompt_embeds,
            pooled_prompt_embeds, negative_pooled_prompt_embeds,
        )  # fmt: skip
        tensors["add_time_ids"] = self._sizes(
            tensors, images, original_size or (height, width), crops_coords_top_left, target_size or (height, width),
            negative_original_size, negative_crops_coords_top_left, negative_target_size,
        )  # fmt: skip
        features = self._features(image, height, width, adapter_conditioning_scale, images)
        timesteps, num_inference_steps = retrieve_timesteps(self.scheduler, num_inference_steps, None, timesteps, sigmas)
        timesteps, num_inference_steps = end_early(self.scheduler, timesteps, num_inference_steps, denoising_end)
        tensors["latents"] = self.prepare_latents(
            images, self.unet.config.in_channels, height, width, tensors["prompt_embeds"].dtype, self.device, generator, latents
        )
        predict = self._predictor(control=self._adapted(features, int(num_inference_steps * adapter_conditioning_factor)))
        latents = denoise(
            self, timesteps, num_inference_steps, tensors, predict, self.prepare_extra_step_kwargs(generator, eta), callback=callback,
            callback_steps=callback_steps,
        )  # fmt: skip
        return self._finish(self._decode(latents, output_type), return_dict)
