"""Inpainting with Stable Diffusion XL (arXiv:2307.01952, arXiv:2201.09865)."""

from collections.abc import Callable
from typing import Any

from mindspore import Tensor

from ...callbacks import MultiPipelineCallbacks, PipelineCallback
from ...core.errors import ConfigError
from ...image_processor import PipelineImageInput, check_output_type
from ..guided import check_size
from ..images import check_strength, retrieve_latents  # noqa: F401  (where PyTorch diffusers has it)
from ..inpainting import (
    InpaintMixin,
    check_mask_crop,
    preprocess_with_mask,
    start_latents,
)
from ..schedule import end_early, retrieve_timesteps
from .base import StableDiffusionXLImageBase
from .pipeline_output import StableDiffusionXLPipelineOutput


class StableDiffusionXLInpaintPipeline(InpaintMixin, StableDiffusionXLImageBase):
    """Paints the masked part of an image as a prompt says; see `pipelines.inpainting`. Components and arguments are described at
    `StableDiffusionXLBase`.

    The image is encoded with the VAE's `latents_mean` and `latents_std`, if it has them, as in image to image; PyTorch diffusers leaves
    them out here, and so changes what the mask keeps.
    """

    _callback_tensor_inputs = [*StableDiffusionXLImageBase._callback_tensor_inputs, "mask", "masked_image_latents"]

    def __call__(
        self,
        prompt: str | list[str] | None = None,
        prompt_2: str | list[str] | None = None,
        image: PipelineImageInput = None,
        mask_image: PipelineImageInput = None,
        masked_image_latents: Tensor | None = None,
        height: int | None = None,
        width: int | None = None,
        padding_mask_crop: int | None = None,
        strength: float = 0.9999,
        num_inference_steps: int = 50,
        timesteps: list[int] | None = None,
        sigmas: list[float] | None = None,
        denoising_start: float | None = None,
        denoising_end: float | None = None,
        guidance_scale: float = 7.5,
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
        cross_attention_kwargs: dict[str, Any] | None = None,
        guidance_rescale: float = 0.0,
        original_size: tuple[int, int] | None = None,
        crops_coords_top_left: tuple[int, int] = (0, 0),
        target_size: tuple[int, int] | None = None,
        negative_original_size: tuple[int, int] | None = None,
        negative_crops_coords_top_left: tuple[int, int] = (0, 0),
        negative_target_size: tuple[int, int] | None = None,
        aesthetic_score: float = 6.0,
        negative_aesthetic_score: float = 2.5,
        clip_skip: int | None = None,
        callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006  (upstream's default; never changed)
    ) -> StableDiffusionXLPipelineOutput | tuple:
        """Draw images; arguments that are not named here are `StableDiffusionXLImg2ImgPipeline`'s.

        Args:
            image: what to paint in: images in any of `VaeImageProcessor.preprocess`'s formats, or latents (images, 4, h, w).
            mask_image: likewise, white where to paint and black where to keep the image.
            masked_image_latents: latents of what the mask leaves, instead of encoding it.
            height: in pixels, a multiple of 8. By default the UNet's `sample_size` times `vae_scale_factor`.
            width: likewise.
            padding_mask_crop: paint only the mask's bounding box with this margin in pixels, at the full size, and put it back. For
                Pillow images only.
            strength: how much of the masked part to replace, from 0 to 1: the part of the steps that is taken. Only 1 starts from noise
                alone.
            denoising_start: the part of the noise levels, between 0.0 and 1.0, that another pipeline has done and whose latents `image`
                is; then no noise is added, and `strength` and `latents` have no effect.
            latents: standard normal numbers to start from, (images, 4, h, w), without the image's latents.

        Raises:
            ConfigError: arguments that do not fit together, a strength that leaves no steps, or a UNet of neither 4 nor 9 channels.
            UnsupportedError: IP-Adapter arguments.
        """
        callback_on_step_end_tensor_inputs = self._begin(
            guidance_scale, clip_skip, cross_attention_kwargs, callback_on_step_end, callback_on_step_end_tensor_inputs, guidance_rescale
        )
        self._set_range(denoising_start, denoising_end)
        default = self._default_size()
        height, width = height or default[0], width or default[1]
        self.check_inputs(
            prompt, prompt_2, image, mask_image, height, width, strength, None, output_type, negative_prompt, negative_prompt_2,
            prompt_embeds, negative_prompt_embeds, ip_adapter_image, ip_adapter_image_embeds, callback_on_step_end_tensor_inputs,
            padding_mask_crop,
        )  # fmt: skip
        check_output_type(output_type)

        tensors, images = self._embed(
            prompt, prompt_2, negative_prompt, negative_prompt_2, num_images_per_prompt, prompt_embeds, negative_prompt_embeds,
            pooled_prompt_embeds, negative_pooled_prompt_embeds,
        )  # fmt: skip
        _, num_inference_steps = retrieve_timesteps(self.scheduler, num_inference_steps, None, timesteps, sigmas)
        timesteps, num_inference_steps = self.get_timesteps(num_inference_steps, strength, self.device, denoising_start)
        if num_inference_steps < 1:
            raise ConfigError(f"strength {strength} and denoising_start {denoising_start} leave none of the steps: pass more of them")

        pixels, mask, masked, crop = preprocess_with_mask(
            self.vae_scale_factor, image, mask_image, masked_image_latents, height, width, padding_mask_crop
        )
        noise, clean = self._start_painting(
            tensors, images, pixels, mask, masked, generator, latents, timesteps[:1], strength == 1.0, add_noise=denoising_start is None
        )
        tensors["add_time_ids"] = self._micro_conditions(
            tensors, images, original_size, crops_coords_top_left, target_size, negative_original_size, negative_crops_coords_top_left,
            negative_target_size, aesthetic_score, negative_aesthetic_score,
        )  # fmt: skip

        timesteps, num_inference_steps = end_early(self.scheduler, timesteps, num_inference_steps, denoising_end)
        self._num_timesteps = len(timesteps)
        latents = self._paint(
            timesteps, num_inference_steps, tensors, clean, noise, self.prepare_extra_step_kwargs(generator, eta), callback_on_step_end,
            callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        return self._finish(self._put_back(self._decode(latents, output_type), image, mask_image, crop), return_dict)

    def check_inputs(
        self,
        prompt: Any,
        prompt_2: Any,
        image: Any,
        mask_image: Any,
        height: int,
        width: int,
        strength: float,
        callback_steps: int | None,
        output_type: str | None,
        negative_prompt: Any = None,
        negative_prompt_2: Any = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        ip_adapter_image: Any = None,
        ip_adapter_image_embeds: Any = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
        padding_mask_crop: int | None = None,
    ) -> None:
        """Check the arguments of `__call__`.

        Raises:
            ConfigError: a strength outside of [0, 1], a size that is not a multiple of 8, `padding_mask_crop` with other than Pillow
                images in and out, and the cases of `StableDiffusionXLPipeline.check_inputs` but for pooled embeddings.
            UnsupportedError: IP-Adapter arguments.
        """
        check_strength(strength)
        check_size(height, width)
        self._check_both_prompts(
            prompt, prompt_2, callback_steps, negative_prompt, negative_prompt_2, prompt_embeds, negative_prompt_embeds, ip_adapter_image,
            ip_adapter_image_embeds, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        check_mask_crop(padding_mask_crop, image, mask_image, output_type)

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
        image: Tensor | None = None,
        timestep: Any = None,
        is_strength_max: bool = True,
        add_noise: bool = True,
        return_noise: bool = False,
        return_image_latents: bool = False,
    ) -> tuple[Tensor, ...]:
        """Latents to start from for images of height x width pixels, then, as asked for, the noise and the image's latents; see
        `inpainting.start_latents`. `device` is not used."""
        shape = (batch_size, num_channels_latents, int(height) // self.vae_scale_factor, int(width) // self.vae_scale_factor)
        latents, noise, clean = start_latents(
            self._encode, self.scheduler, shape, dtype, generator, latents, image, timestep, is_strength_max, add_noise,
            return_image_latents,
        )  # fmt: skip
        return (latents, *((noise,) if return_noise else ()), *((clean,) if return_image_latents else ()))
