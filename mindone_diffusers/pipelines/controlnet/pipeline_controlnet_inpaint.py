"""Inpainting with Stable Diffusion 1 and 2 and ControlNets (arXiv:2302.05543, arXiv:2201.09865)."""

from collections.abc import Callable
from typing import Any

from mindspore import Tensor

from ...callbacks import MultiPipelineCallbacks, PipelineCallback
from ...image_processor import PipelineImageInput, check_output_type
from ..control import PaintControlMixin
from ..guided import check_size
from ..images import check_steps_left, check_strength, retrieve_latents  # noqa: F401  (where PyTorch diffusers has it)
from ..inpainting import check_mask_crop, preprocess_with_mask
from ..stable_diffusion.pipeline_output import StableDiffusionPipelineOutput
from ..stable_diffusion.pipeline_stable_diffusion_inpaint import StableDiffusionInpaintPipeline
from .base import StableDiffusionControlNetBase


class StableDiffusionControlNetInpaintPipeline(PaintControlMixin, StableDiffusionControlNetBase, StableDiffusionInpaintPipeline):
    """Paints the masked part of an image as a prompt says, steered by other images; the components are
    `StableDiffusionControlNetBase`'s. The UNet is as of `StableDiffusionInpaintPipeline`.

    A UNet that takes the guidance scale as an input is given it; PyTorch diffusers leaves it out here.
    """

    _callback_tensor_inputs = [*StableDiffusionInpaintPipeline._callback_tensor_inputs, "control_image"]

    def __call__(
        self,
        prompt: str | list[str] | None = None,
        image: PipelineImageInput = None,
        mask_image: PipelineImageInput = None,
        control_image: PipelineImageInput = None,
        height: int | None = None,
        width: int | None = None,
        padding_mask_crop: int | None = None,
        strength: float = 1.0,
        num_inference_steps: int = 50,
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
        controlnet_conditioning_scale: float | list[float] = 0.5,
        guess_mode: bool = False,
        control_guidance_start: float | list[float] = 0.0,
        control_guidance_end: float | list[float] = 1.0,
        clip_skip: int | None = None,
        callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006  (upstream's default; never changed)
    ) -> StableDiffusionPipelineOutput | tuple:
        """Draw images; arguments that are not named here are those of `StableDiffusionInpaintPipeline` and
        `StableDiffusionControlNetPipeline`.

        Args:
            control_image: what steers the ControlNet: images in any of `VaeImageProcessor.preprocess`'s formats, one or as many as
                prompts. Of several ControlNets, a list of one entry for each. With `padding_mask_crop`, a Pillow image.
            height: in pixels, a multiple of 8; by default the image's.
            width: likewise.

        Raises:
            ConfigError: arguments that do not fit together, a strength that leaves no steps, or a UNet of neither 4 nor 9 channels.
            TypeError: see `check_inputs`.
            UnsupportedError: IP-Adapter arguments.
        """
        callback_on_step_end_tensor_inputs = self._begin(
            guidance_scale, clip_skip, cross_attention_kwargs, callback_on_step_end, callback_on_step_end_tensor_inputs
        )
        self.check_inputs(
            prompt, control_image, mask_image, height, width, None, output_type, negative_prompt, prompt_embeds, negative_prompt_embeds,
            ip_adapter_image, ip_adapter_image_embeds, controlnet_conditioning_scale, control_guidance_start, control_guidance_end,
            callback_on_step_end_tensor_inputs, padding_mask_crop,
        )  # fmt: skip
        check_strength(strength)
        check_output_type(output_type)

        tensors, images = self._embed(prompt, negative_prompt, num_images_per_prompt, prompt_embeds, negative_prompt_embeds)
        dtype, guess_mode, controls = tensors["prompt_embeds"].dtype, self._guesses(guess_mode), self._images_of(control_image)
        pixels, mask, masked, crop = preprocess_with_mask(self.vae_scale_factor, image, mask_image, None, height, width, padding_mask_crop)
        tensors["control_image"], _ = self._prepare_all(controls, *mask.shape[2:], images, num_images_per_prompt, guess_mode, crop)
        timesteps, num_inference_steps = self._set_timesteps(num_inference_steps, strength)
        control = self._control(
            len(timesteps), len(controls), controlnet_conditioning_scale, control_guidance_start, control_guidance_end, guess_mode
        )
        noise, clean = self._start_painting(tensors, images, pixels, mask, masked, generator, latents, timesteps[:1], strength == 1.0)
        latents = self._paint(
            timesteps, num_inference_steps, tensors, clean, noise, self.prepare_extra_step_kwargs(generator, eta), callback_on_step_end,
            callback_on_step_end_tensor_inputs, control,
        )  # fmt: skip
        result, unsafe = self._decode(latents, output_type, dtype, generator)
        return self._finish(self._put_back(result, image, mask_image, crop), unsafe, return_dict)

    def check_inputs(
        self,
        prompt: Any,
        image: Any,
        mask_image: Any,
        height: int | None,
        width: int | None,
        callback_steps: int | None,
        output_type: str | None,
        negative_prompt: Any = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        ip_adapter_image: Any = None,
        ip_adapter_image_embeds: Any = None,
        controlnet_conditioning_scale: float | list[float] = 1.0,
        control_guidance_start: float | list[float] = 0.0,
        control_guidance_end: float | list[float] = 1.0,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
        padding_mask_crop: int | None = None,
    ) -> None:
        """Check the arguments of `__call__`, with the control image as `image`.

        Raises:
            ConfigError: a size that is not a multiple of 8, `padding_mask_crop` with other than Pillow images in and out, and the cases of
                `StableDiffusionControlNetPipeline.check_inputs`.
            TypeError: likewise.
            UnsupportedError: IP-Adapter arguments.
        """
        check_size(height or 0, width or 0)
        self._check_prompts(
            prompt, callback_steps, negative_prompt, prompt_embeds, negative_prompt_embeds, ip_adapter_image, ip_adapter_image_embeds,
            callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        check_mask_crop(padding_mask_crop, image, mask_image, output_type)
        self._check_control(image, prompt, prompt_embeds, controlnet_conditioning_scale, control_guidance_start, control_guidance_end)
