"""Images four times as large with Stable Diffusion 2's upscaler (arXiv:2112.10752)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from mindspore import Tensor

from ...core.errors import ConfigError
from ...core.random import randn_tensor
from ...image_processor import PipelineImageInput, check_output_type
from ...models.autoencoders.autoencoder_kl import AutoencoderKL
from ...models.unets.unet_2d_condition import UNet2DConditionModel
from ...nn import functional as F
from ...schedulers.scheduling_ddpm import DDPMScheduler
from ...schedulers.scheduling_utils import KarrasDiffusionSchedulers
from ...text_encoders.clip import CLIPTextModel
from ..denoising import denoise
from ..guided import check_callback_steps
from ..images import upcast
from ..schedule import retrieve_timesteps
from ..upscaling import UpscalingPipeline
from .base import StableDiffusionBase, correct_config
from .pipeline_output import StableDiffusionPipelineOutput

if TYPE_CHECKING:
    from transformers import CLIPImageProcessor, CLIPTokenizer

SCALING_FACTOR = 0.08333
"""Of the upscaler's VAE; its first config does not have it."""


class StableDiffusionUpscalePipeline(UpscalingPipeline, StableDiffusionBase):
    """Draws images of prompts that are small images enlarged: the UNet is shown the small ones, with some noise, beside the latents.

    Args:
        vae: decodes latents to four times their size. Of float16, it is float32 while it runs if its config has `force_upcast`.
        low_res_scheduler: adds the noise to the small images.
        safety_checker: as DeepFloyd IF's: called as `(images=, clip_input=)`, it returns the images, for each whether it was unsafe, and
            for each whether it has a watermark. May be None.
        watermarker: marks Pillow images with `apply_watermark(images)`; may be None.
        max_noise_level: the largest `noise_level`.

    The other components are `StableDiffusionBase`'s.
    """

    model_cpu_offload_seq = "text_encoder->unet->vae"
    _optional_components = ["watermarker", "safety_checker", "feature_extractor"]

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: "CLIPTokenizer",
        unet: UNet2DConditionModel,
        low_res_scheduler: DDPMScheduler,
        scheduler: KarrasDiffusionSchedulers,
        safety_checker: Any | None = None,
        feature_extractor: "CLIPImageProcessor | None" = None,
        watermarker: Any | None = None,
        max_noise_level: int = 350,
    ):
        if vae is not None and vae.config.get("scaling_factor") != SCALING_FACTOR:
            correct_config(vae, "scaling_factor", SCALING_FACTOR)
        self.register_modules(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, low_res_scheduler=low_res_scheduler, scheduler=scheduler,
            safety_checker=safety_checker, watermarker=watermarker, feature_extractor=feature_extractor,
        )  # fmt: skip
        self.register_to_config(max_noise_level=max_noise_level)

    def __call__(
        self,
        prompt: str | list[str] | None = None,
        image: PipelineImageInput = None,
        num_inference_steps: int = 75,
        guidance_scale: float = 9.0,
        noise_level: int = 20,
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
        clip_skip: int | None = None,
    ) -> StableDiffusionPipelineOutput | tuple:
        """Draw images; arguments that are not named here are `StableDiffusionPipeline`'s.

        Args:
            prompt: what the images show: one text, or a list.
            image: the small images, in any of `VaeImageProcessor.preprocess`'s formats, one for each prompt.
            noise_level: how much noise they get, a timestep of `low_res_scheduler`; more lets the result differ more from them.
            latents: standard normal numbers to start from, (images, channels, height, width), with the small images' sides.
            callback: called as `callback(step, timestep, latents)` when the progress bar goes on.
            callback_steps: at every how many steps.

        Raises:
            ConfigError: arguments that do not fit together (see `check_inputs`), or a UNet of other channels than latents and image have.
        """
        self._begin(guidance_scale, clip_skip, cross_attention_kwargs, None, [])
        self.check_inputs(prompt, image, noise_level, callback_steps, negative_prompt, prompt_embeds, negative_prompt_embeds)
        check_output_type(output_type)

        tensors, images = self._embed(prompt, negative_prompt, num_images_per_prompt, prompt_embeds, negative_prompt_embeds)
        dtype = tensors["prompt_embeds"].dtype
        timesteps, num_inference_steps = retrieve_timesteps(self.scheduler, num_inference_steps)
        shown = self.image_processor.preprocess(image).astype(dtype)
        noise = randn_tensor(shown.shape, generator=generator, dtype=dtype)
        shown = self.low_res_scheduler.add_noise(shown, noise, [noise_level])
        shown = F.cat((shown,) * ((2 if self.do_classifier_free_guidance else 1) * num_images_per_prompt), 0)
        levels = Tensor(np.full(shown.shape[0], noise_level, np.int32))
        channels = self.vae.config.latent_channels
        tensors["latents"] = self.prepare_latents(images, channels, *shown.shape[2:], dtype, self.device, generator, latents)
        self._check_shown(shown, "upscaler")

        predict = self._predictor(lambda tensors: (shown,), lambda sample, t, tensors: {"class_labels": levels})
        latents = denoise(
            self, timesteps, num_inference_steps, tensors, predict, self.prepare_extra_step_kwargs(generator, eta), callback=callback,
            callback_steps=callback_steps,
        )  # fmt: skip
        image, unsafe = self._decode(latents, output_type, dtype, None)
        if output_type == "pil" and self.watermarker is not None:
            image = self.watermarker.apply_watermark(image)
        return self._finish(image, unsafe, return_dict)

    def _decode_latents(self, latents: Tensor, **conditions: Any) -> Tensor:
        with upcast(self.vae):
            return super()._decode_latents(latents.astype(self.vae.dtype), **conditions)

    def run_safety_checker(self, image: Tensor, device: Any, dtype: Any) -> tuple[Any, list[bool] | None, list[bool] | None]:
        """Show images to the safety checker.

        Args:
            image: decoded images in [-1, 1].
            device: not used.
            dtype: what the images are shown to the checker in.

        Returns:
            The images, for each whether it was unsafe, and for each whether it has a watermark; None without a safety checker.
        """
        return (image, None, None) if self.safety_checker is None else super().run_safety_checker(image, device, dtype)

    def upcast_vae(self) -> None:
        """The VAE in float32 from now on."""
        self.vae.float()

    def check_inputs(
        self,
        prompt: Any,
        image: Any,
        noise_level: int,
        callback_steps: int,
        negative_prompt: Any = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
    ) -> None:
        """Check the arguments of `__call__`.

        Raises:
            ConfigError: no images or not one for each prompt, a noise level above `max_noise_level`, both or neither of a prompt and its
                embeddings, a prompt of another type, or embeddings of different shapes.
        """
        check_callback_steps(callback_steps)
        self._check_prompts(prompt, None, negative_prompt, prompt_embeds, negative_prompt_embeds, None, None, None)
        self._check_small_images(image, prompt, prompt_embeds)
        if not 0 <= noise_level <= self.config.max_noise_level:
            raise ConfigError(f"noise_level is {noise_level}; expected a number from 0 to {self.config.max_noise_level}")
