"""Text to image with Stable Diffusion XL and ControlNets (arXiv:2302.05543)."""

from collections.abc import Callable
from typing import Any

from mindspore import Tensor

from ...callbacks import MultiPipelineCallbacks, PipelineCallback
from ...image_processor import PipelineImageInput, check_output_type
from ..control import TextControlMixin
from ..denoising import denoise
from ..schedule import end_early, retrieve_timesteps
from ..stable_diffusion_xl.pipeline_output import StableDiffusionXLPipelineOutput
from ..stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from .base import StableDiffusionXLControlNetBase


class StableDiffusionXLControlNetPipeline(TextControlMixin, StableDiffusionXLControlNetBase, StableDiffusionXLPipeline):
    """Draws images of prompts, steered by images. Components and arguments are described at `StableDiffusionXLControlNetBase`."""

    _callback_tensor_inputs = [
        *StableDiffusionXLPipeline._callback_tensor_inputs, "negative_prompt_embeds", "negative_pooled_prompt_embeds",
        "negative_add_time_ids", "image",
    ]  # fmt: skip

    def __call__(
        self,
        prompt: str | list[str] | None = None,
        prompt_2: str | list[str] | None = None,
        image: PipelineImageInput = None,
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
        cross_attention_kwargs: dict[str, Any] | None = None,
        controlnet_conditioning_scale: float | list[float] = 1.0,
        guess_mode: bool = False,
        control_guidance_start: float | list[float] = 0.0,
        control_guidance_end: float | list[float] = 1.0,
        original_size: tuple[int, int] | None = None,
        crops_coords_top_left: tuple[int, int] = (0, 0),
        target_size: tuple[int, int] | None = None,
        negative_original_size: tuple[int, int] | None = None,
        negative_crops_coords_top_left: tuple[int, int] = (0, 0),
        negative_target_size: tuple[int, int] | None = None,
        clip_skip: int | None = None,
        callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006  (upstream's default; never changed)
    ) -> StableDiffusionXLPipelineOutput | tuple:
        """Draw images; arguments that are not named here are those of `StableDiffusionXLPipeline` and `StableDiffusionControlNetPipeline`.

        Args:
            image: what steers the ControlNet: images in any of `VaeImageProcessor.preprocess`'s formats, one or as many as prompts. Of
                several ControlNets, a list of one entry for each.

        Raises:
            ConfigError: arguments that do not fit together; see `check_inputs`.
            TypeError: see `check_inputs`.
            UnsupportedError: IP-Adapter arguments.
        """
        callback_on_step_end_tensor_inputs = self._begin(
            guidance_scale, clip_skip, cross_attention_kwargs, callback_on_step_end, callback_on_step_end_tensor_inputs
        )
        self._denoising_end = denoising_end
        self._check(
            prompt, prompt_2, image, None, negative_prompt, negative_prompt_2, prompt_embeds, negative_prompt_embeds, pooled_prompt_embeds,
            negative_pooled_prompt_embeds, ip_adapter_image, ip_adapter_image_embeds, controlnet_conditioning_scale,
            control_guidance_start, control_guidance_end, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        check_output_type(output_type)

        tensors, images = self._embed(
            prompt, prompt_2, negative_prompt, negative_prompt_2, num_images_per_prompt, prompt_embeds, negative_prompt_embeds,
            pooled_prompt_embeds, negative_pooled_prompt_embeds,
        )  # fmt: skip
        dtype, guess_mode, controls = tensors["prompt_embeds"].dtype, self._guesses(guess_mode), self._images_of(image)
        tensors["image"], size = self._prepare_all(controls, height, width, images, num_images_per_prompt, guess_mode)
        tensors["add_time_ids"] = self._sizes(
            tensors, images, original_size or size, crops_coords_top_left, target_size or size, negative_original_size,
            negative_crops_coords_top_left, negative_target_size,
        )  # fmt: skip
        timesteps, num_inference_steps = retrieve_timesteps(self.scheduler, num_inference_steps, None, timesteps, sigmas)
        control = self._control(
            len(timesteps), len(controls), controlnet_conditioning_scale, control_guidance_start, control_guidance_end, guess_mode
        )
        timesteps, num_inference_steps = end_early(self.scheduler, timesteps, num_inference_steps, denoising_end)
        self._num_timesteps = len(timesteps)
        tensors["latents"] = self.prepare_latents(images, self.unet.config.in_channels, *size, dtype, self.device, generator, latents)
        latents = denoise(
            self, timesteps, num_inference_steps, tensors, self._predictor(control=control),
            self.prepare_extra_step_kwargs(generator, eta), callback_on_step_end, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        return self._finish(self._decode(latents, output_type), return_dict)

    def check_inputs(
        self,
        prompt: Any,
        prompt_2: Any,
        image: Any,
        callback_steps: int | None,
        negative_prompt: Any = None,
        negative_prompt_2: Any = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        ip_adapter_image: Any = None,
        ip_adapter_image_embeds: Any = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        controlnet_conditioning_scale: float | list[float] = 1.0,
        control_guidance_start: float | list[float] = 0.0,
        control_guidance_end: float | list[float] = 1.0,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> None:
        """Check the arguments of `__call__`; raises as `StableDiffusionXLControlNetBase._check`."""
        self._check(
            prompt, prompt_2, image, callback_steps, negative_prompt, negative_prompt_2, prompt_embeds, negative_prompt_embeds,
            pooled_prompt_embeds, negative_pooled_prompt_embeds, ip_adapter_image, ip_adapter_image_embeds, controlnet_conditioning_scale,
            control_guidance_start, control_guidance_end, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
