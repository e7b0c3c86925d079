"""Image to image with Stable Diffusion 1 and 2 and ControlNets (arXiv:2302.05543, arXiv:2108.01073)."""

from collections.abc import Callable
from typing import Any

from mindspore import Tensor

from ...callbacks import MultiPipelineCallbacks, PipelineCallback
from ...image_processor import PipelineImageInput, check_output_type
from ..control import ImageControlMixin
from ..denoising import denoise
from ..images import check_strength, retrieve_latents  # noqa: F401  (where PyTorch diffusers has it)
from ..stable_diffusion.pipeline_output import StableDiffusionPipelineOutput
from ..stable_diffusion.pipeline_stable_diffusion_img2img import StableDiffusionImg2ImgPipeline
from .base import StableDiffusionControlNetBase


class StableDiffusionControlNetImg2ImgPipeline(ImageControlMixin, StableDiffusionControlNetBase, StableDiffusionImg2ImgPipeline):
    """Changes an image as a prompt says, steered by other images; the components are `StableDiffusionControlNetBase`'s.

    A UNet that takes the guidance scale as an input is given it; PyTorch diffusers leaves it out here.
    """

    _callback_tensor_inputs = [*StableDiffusionImg2ImgPipeline._callback_tensor_inputs, "control_image"]

    def __call__(
        self,
        prompt: str | list[str] | None = None,
        image: PipelineImageInput = None,
        control_image: PipelineImageInput = None,
        height: int | None = None,
        width: int | None = None,
        strength: float = 0.8,
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
        controlnet_conditioning_scale: float | list[float] = 0.8,
        guess_mode: bool = False,
        control_guidance_start: float | list[float] = 0.0,
        control_guidance_end: float | list[float] = 1.0,
        clip_skip: int | None = None,
        callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006  (upstream's default; never changed)
    ) -> StableDiffusionPipelineOutput | tuple:
        """Draw images; arguments that are not named here are those of `StableDiffusionImg2ImgPipeline` and
        `StableDiffusionControlNetPipeline`.

        Args:
            control_image: what steers the ControlNet, of the size of `image`: images in any of `VaeImageProcessor.preprocess`'s formats,
                one or as many as prompts. Of several ControlNets, a list of one entry for each.
            height: in pixels, by default the images'. Cut to a multiple of `vae_scale_factor`.
            width: likewise.
            latents: noisy latents to start from instead of the image's, taken as they are.

        Raises:
            ConfigError: arguments that do not fit together, or a strength that leaves no steps.
            TypeError: see `check_inputs`.
            UnsupportedError: IP-Adapter arguments.
        """
        callback_on_step_end_tensor_inputs = self._begin(
            guidance_scale, clip_skip, cross_attention_kwargs, callback_on_step_end, callback_on_step_end_tensor_inputs
        )
        self.check_inputs(
            prompt, control_image, None, negative_prompt, prompt_embeds, negative_prompt_embeds, ip_adapter_image, ip_adapter_image_embeds,
            controlnet_conditioning_scale, control_guidance_start, control_guidance_end, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        check_strength(strength)
        check_output_type(output_type)

        tensors, images = self._embed(prompt, negative_prompt, num_images_per_prompt, prompt_embeds, negative_prompt_embeds)
        timesteps, num_inference_steps, control = self._start_from(
            image, control_image, tensors, images, (height, width), strength, num_inference_steps, num_images_per_prompt, generator,
            latents, guess_mode, controlnet_conditioning_scale, control_guidance_start, control_guidance_end,
        )  # fmt: skip
        latents = denoise(
            self, timesteps, num_inference_steps, tensors, self._predictor(control=control),
            self.prepare_extra_step_kwargs(generator, eta), callback_on_step_end, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        return self._finish(*self._decode(latents, output_type, tensors["prompt_embeds"].dtype, generator), return_dict)

    def check_inputs(
        self,
        prompt: Any,
        image: Any,
        callback_steps: int | None,
        negative_prompt: Any = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        ip_adapter_image: Any = None,
        ip_adapter_image_embeds: Any = None,
        controlnet_conditioning_scale: float | list[float] = 1.0,
        control_guidance_start: float | list[float] = 0.0,
        control_guidance_end: float | list[float] = 1.0,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> None:
        """Check the arguments of `__call__`, with the control image as `image`; raises as `StableDiffusionControlNetPipeline`'s."""
        self._check_prompts(
            prompt, callback_steps, negative_prompt, prompt_embeds, negative_prompt_embeds, ip_adapter_image, ip_adapter_image_embeds,
            callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        self._check_control(image, prompt, prompt_embeds, controlnet_conditioning_scale, control_guidance_start, control_guidance_end)
