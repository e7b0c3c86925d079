"""Inpainting with Stable Diffusion 1 and 2 (arXiv:2112.10752, arXiv:2201.09865)."""

from collections.abc import Callable
from typing import Any

from mindspore import Tensor

from ...callbacks import MultiPipelineCallbacks, PipelineCallback
from ...image_processor import PipelineImageInput, check_output_type
from ..guided import check_size
from ..images import check_steps_left, check_strength, retrieve_latents  # noqa: F401  (where PyTorch diffusers has it)
from ..inpainting import (
    InpaintMixin,
    check_mask_crop,
    preprocess_with_mask,
    start_latents,
)
from ..schedule import retrieve_timesteps
from .base import StableDiffusionBase, StableDiffusionImageBase
from .pipeline_output import StableDiffusionPipelineOutput


class StableDiffusionInpaintPipeline(InpaintMixin, StableDiffusionBase):
    """Paints the masked part of an image as a prompt says.

    An inpainting UNet (9 input channels) is shown the mask and the rest of the image. With a UNet of 4 channels, what is outside the mask
    is replaced by the noised image after each step. The components are `StableDiffusionBase`'s.
    """

    _scheduler_corrections = {"steps_offset": 1, "skip_prk_steps": True}
    _callback_tensor_inputs = ["latents", "prompt_embeds", "negative_prompt_embeds", "mask", "masked_image_latents"]

    get_timesteps = StableDiffusionImageBase.get_timesteps

    def __call__(
        self,
        prompt: str | list[str] | None = None,
        image: PipelineImageInput = None,
        mask_image: PipelineImageInput = None,
        masked_image_latents: Tensor | None = None,
        height: int | None = None,
        width: int | None = None,
        padding_mask_crop: int | None = None,
        strength: float = 1.0,
        num_inference_steps: int = 50,
        timesteps: list[int] | None = None,
        sigmas: list[float] | None = None,
        guidance_scale: float = 7.5,
        negative_prompt: str | list[str] | None = None,
        num_images_per_prompt: int | None = 1,
        eta: float = 0.0,
        generator: Any = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        ip_adapter_image: PipelineImageInput | None = None,
        ip_adapter_image_embeds: list[Tensor] | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: dict[str, Any] | None = None,
        clip_skip: int | None = None,
        callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006  (upstream's default; never changed)
    ) -> StableDiffusionPipelineOutput | tuple:
        """Draw images; arguments that are not named here are `StableDiffusionPipeline`'s.

        Args:
            image: what to paint into: images in any of `VaeImageProcessor.preprocess`'s formats, or latents.
            mask_image: white where to paint: images likewise, of one channel.
            masked_image_latents: latents of what the mask leaves, for a UNet of 9 channels; by default those of `image`.
            padding_mask_crop: cut out the mask's surroundings, so many pixels around it, paint them at full size and put them back. For
                Pillow images only.
            strength: how much of the masked part to replace, from 0 to 1: the part of the steps that is taken.

        Raises:
            ConfigError: arguments that do not fit together, a strength that leaves no steps, or a UNet of neither 4 nor 9 channels.
            UnsupportedError: IP-Adapter arguments.
        """
        callback_on_step_end_tensor_inputs = self._begin(
            guidance_scale, clip_skip, cross_attention_kwargs, callback_on_step_end, callback_on_step_end_tensor_inputs
        )
        default = self._default_size()
        height, width = height or default[0], width or default[1]
        self.check_inputs(
            prompt, image, mask_image, height, width, strength, None, output_type, negative_prompt, prompt_embeds, negative_prompt_embeds,
            ip_adapter_image, ip_adapter_image_embeds, callback_on_step_end_tensor_inputs, padding_mask_crop,
        )  # fmt: skip
        check_output_type(output_type)

        tensors, images = self._embed(prompt, negative_prompt, num_images_per_prompt, prompt_embeds, negative_prompt_embeds)
        dtype = tensors["prompt_embeds"].dtype
        _, num_inference_steps = retrieve_timesteps(self.scheduler, num_inference_steps, None, timesteps, sigmas)
        timesteps, num_inference_steps = self.get_timesteps(num_inference_steps, strength, self.device)
        check_steps_left(num_inference_steps, strength)
        self._num_timesteps = len(timesteps)

        pixels, mask, masked, crop = preprocess_with_mask(
            self.vae_scale_factor, image, mask_image, masked_image_latents, height, width, padding_mask_crop
        )

        noise, clean = self._start_painting(tensors, images, pixels, mask, masked, generator, latents, timesteps[:1], strength == 1.0)
        latents = self._paint(
            timesteps, num_inference_steps, tensors, clean, noise, self.prepare_extra_step_kwargs(generator, eta), callback_on_step_end,
            callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        conditions = {}
        if type(self.vae).__name__ == "AsymmetricAutoencoderKL":  # whose decoder is shown the image around the mask
            conditions = {"image": pixels.astype(dtype), "mask": mask.astype(dtype)}
        result, unsafe = self._decode(latents, output_type, dtype, generator, **conditions)
        return self._finish(self._put_back(result, image, mask_image, crop), unsafe, return_dict)

    def check_inputs(
        self,
        prompt: Any,
        image: Any,
        mask_image: Any,
        height: int,
        width: int,
        strength: float,
        callback_steps: int | None,
        output_type: str | None,
        negative_prompt: Any = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        ip_adapter_image: Any = None,
        ip_adapter_image_embeds: Any = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
        padding_mask_crop: int | None = None,
    ) -> None:
        """Check the arguments of `__call__`.

        Raises:
            ConfigError: a strength outside of [0, 1], a size that is not a multiple of `vae_scale_factor`, `padding_mask_crop` with other
                than Pillow images in and out, and the cases of `StableDiffusionPipeline.check_inputs`.
            UnsupportedError: IP-Adapter arguments.
        """
        check_strength(strength)
        check_size(height, width, self.vae_scale_factor)
        self._check_prompts(
            prompt, callback_steps, negative_prompt, prompt_embeds, negative_prompt_embeds, ip_adapter_image, ip_adapter_image_embeds,
            callback_on_step_end_tensor_inputs,
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
        return_noise: bool = False,
        return_image_latents: bool = False,
    ) -> tuple[Tensor, ...]:
        """Latents to start from: noise, or the image's with noise.

        Args:
            latents: standard normal numbers to start from, instead of anything else.
            image: (images, 3, height, width) in [-1, 1], or latents.
            timestep: how noisy the image's latents are to be.
            is_strength_max: start from noise alone.
            return_noise: return the noise too.
            return_image_latents: return the image's latents, without noise, too.

        Raises:
            ConfigError: neither noise alone nor an image and a timestep, or as many generators as images were not given.
        """
        shape = (batch_size, num_channels_latents, int(height) // self.vae_scale_factor, int(width) // self.vae_scale_factor)
        latents, noise, clean = start_latents(
            self._encode,
            self.scheduler,
            shape,
            dtype,
            generator,
            latents,
            image,
            timestep,
            is_strength_max,
            with_image=return_image_latents,
        )
        return (latents, *((noise,) if return_noise else ()), *((clean,) if return_image_latents else ()))
