"""Image to image with Stable Diffusion XL and ControlNets (arXiv:2302.05543, arXiv:2108.01073)."""

from collections.abc import Callable
from typing import Any

from mindspore import Tensor

from ...callbacks import MultiPipelineCallbacks, PipelineCallback
from ...image_processor import PipelineImageInput, check_output_type
from ..control import ImageControlMixin
from ..denoising import denoise
from ..images import check_steps, retrieve_latents  # noqa: F401  (where PyTorch diffusers has it)
from ..stable_diffusion_xl.pipeline_output import StableDiffusionXLPipelineOutput
from ..stable_diffusion_xl.pipeline_stable_diffusion_xl_img2img import StableDiffusionXLImg2ImgPipeline
from .base import StableDiffusionXLControlNetImageBase


class StableDiffusionXLControlNetImg2ImgPipeline(ImageControlMixin, StableDiffusionXLControlNetImageBase, StableDiffusionXLImg2ImgPipeline):
    """Changes an image as a prompt says, steered by other images. Components and arguments are described at
    `StableDiffusionXLControlNetBase`.

    A UNet that takes the guidance scale as an input is given it; PyTorch diffusers leaves it out here.
    """

    _callback_tensor_inputs = [
        *StableDiffusionXLImg2ImgPipeline._callback_tensor_inputs, "negative_prompt_embeds", "negative_pooled_prompt_embeds",
        "add_neg_time_ids", "control_image",
    ]  # fmt: skip

    def __call__(
        self,
        prompt: str | list[str] | None = None,
        prompt_2: str | list[str] | None = None,
        image: PipelineImageInput = None,
        control_image: PipelineImageInput = None,
        height: int | None = None,
        width: int | None = None,
        strength: float = 0.8,
        num_inference_steps: int = 50,
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
        controlnet_conditioning_scale: float | list[float] = 0.8,
        guess_mode: bool = False,
        control_guidance_start: float | list[float] = 0.0,
        control_guidance_end: float | list[float] = 1.0,
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
        """Draw images; arguments that are not named here are those of `StableDiffusionXLImg2ImgPipeline` and
        `StableDiffusionControlNetImg2ImgPipeline`.

        Raises:
            ConfigError: arguments that do not fit together, or a strength that leaves no steps.
            TypeError: see `check_inputs`.
            UnsupportedError: IP-Adapter arguments.
        """
        callback_on_step_end_tensor_inputs = self._begin(
            guidance_scale, clip_skip, cross_attention_kwargs, callback_on_step_end, callback_on_step_end_tensor_inputs
        )
        check_steps(strength, num_inference_steps)
        self._check(
            prompt, prompt_2, control_image, None, negative_prompt, negative_prompt_2, prompt_embeds, negative_prompt_embeds,
            pooled_prompt_embeds, negative_pooled_prompt_embeds, ip_adapter_image, ip_adapter_image_embeds, controlnet_conditioning_scale,
            control_guidance_start, control_guidance_end, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        check_output_type(output_type)

        tensors, images = self._embed(
            prompt, prompt_2, negative_prompt, negative_prompt_2, num_images_per_prompt, prompt_embeds, negative_prompt_embeds,
            pooled_prompt_embeds, negative_pooled_prompt_embeds,
        )  # fmt: skip
        timesteps, num_inference_steps, control = self._start_from(
            image, control_image, tensors, images, (height, width), strength, num_inference_steps, num_images_per_prompt, generator,
            latents, guess_mode, controlnet_conditioning_scale, control_guidance_start, control_guidance_end,
        )  # fmt: skip
        tensors["add_time_ids"] = self._micro_conditions(
            tensors, images, original_size, crops_coords_top_left, target_size, negative_original_size, negative_crops_coords_top_left,
            negative_target_size, aesthetic_score, negative_aesthetic_score,
        )  # fmt: skip
        tensors["add_neg_time_ids"] = tensors["add_time_ids"][:images]  # for callbacks; it has no effect
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
        strength: float,
        num_inference_steps: int,
        callback_steps: int | None,
        negative_prompt: Any = None,
        negative_prompt_2: Any = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        ip_adapter_image: Any = None,
        ip_adapter_image_embeds: Any = None,
        controlnet_conditioning_scale: float | list[float] = 1.0,
        control_guidance_start: float | list[float] = 0.0,
        control_guidance_end: float | list[float] = 1.0,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> None:
        """Check the arguments of `__call__`, with the control image as `image`.

        Raises:
            TypeError: see `StableDiffusionXLControlNetBase._check`.
            ConfigError: a strength outside of [0, 1], no whole number of steps, and likewise.
            UnsupportedError: IP-Adapter arguments.
        """
        check_steps(strength, num_inference_steps)
        self._check(
            prompt, prompt_2, image, callback_steps, negative_prompt, negative_prompt_2, prompt_embeds, negative_prompt_embeds,
            pooled_prompt_embeds, negative_pooled_prompt_embeds, ip_adapter_image, ip_adapter_image_embeds, controlnet_conditioning_scale,
            control_guidance_start, control_guidance_end, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
