"""Text to image with Stable Diffusion XL and ControlNets for several kinds of images (https://github.com/xinsir6/ControlNetPlus)."""

from collections.abc import Callable
from typing import Any

from mindspore import Tensor

from ...callbacks import MultiPipelineCallbacks, PipelineCallback
from ...image_processor import PipelineImageInput
from ..control import UnionMixin
from ..schedule import retrieve_timesteps  # noqa: F401  (where PyTorch diffusers has it)
from ..stable_diffusion_xl.pipeline_output import StableDiffusionXLPipelineOutput
from ..stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from .pipeline_controlnet_sd_xl import StableDiffusionXLControlNetPipeline


class StableDiffusionXLControlNetUnionPipeline(UnionMixin, StableDiffusionXLControlNetPipeline):
    """Draws images of prompts, steered by images of several kinds; `controlnet` is a `ControlNetUnionModel`, or a list of them. Other
    components and arguments are described at `StableDiffusionXLControlNetBase`."""

    _callback_tensor_inputs = StableDiffusionXLPipeline._callback_tensor_inputs

    def __call__(
        self,
        prompt: str | list[str] | None = None,
        prompt_2: str | list[str] | None = None,
        control_image: PipelineImageInput | list[PipelineImageInput] = None,
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
        control_mode: int | list[int] | list[list[int]] | None = None,
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
        """Draw images; arguments that are not named here are `StableDiffusionXLControlNetPipeline`'s.

        Args:
            control_image: what steers the ControlNet: images in any of `VaeImageProcessor.preprocess`'s formats, one or as many as
                prompts; or a list of them, one entry for each kind. Of several ControlNets, one entry for each.
            controlnet_conditioning_scale: how strong the ControlNet is; or a list, one for each entry of `control_image`. Of a single
                ControlNet, the factor of a single image is that of the whole output.
            guess_mode: see `StableDiffusionControlNetPipeline`. (With guidance, PyTorch diffusers fails.)
            control_guidance_start: the part of the steps, from 0 to 1, before which an image is off; one for all or a list.
            control_guidance_end: likewise, after which.
            control_mode: the number of the control image's kind; or a list, one for each entry of `control_image`.

        Raises:
            ConfigError: arguments that do not fit together; see `check_inputs`.
            TypeError: see `check_inputs`.
            UnsupportedError: IP-Adapter arguments.
        """
        self._control_mode = control_mode
        return super().__call__(
            prompt, prompt_2, control_image, height, width, num_inference_steps, timesteps, sigmas, denoising_end, guidance_scale,
            negative_prompt, negative_prompt_2, num_images_per_prompt, eta, generator, latents, prompt_embeds, negative_prompt_embeds,
            pooled_prompt_embeds, negative_pooled_prompt_embeds, ip_adapter_image, ip_adapter_image_embeds, output_type, return_dict,
            cross_attention_kwargs, controlnet_conditioning_scale, guess_mode, control_guidance_start, control_guidance_end, original_size,
            crops_coords_top_left, target_size, negative_original_size, negative_crops_coords_top_left, negative_target_size, clip_skip,
            callback_on_step_end, callback_on_step_end_tensor_inputs,
        )  # fmt: skip

    def check_inputs(
        self,
        prompt: Any,
        prompt_2: Any,
        image: Any,
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
        control_mode: int | list[int] | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> None:
        """Check the arguments of `__call__`.

        Raises:
            TypeError: no `control_mode`, and the cases of `StableDiffusionXLControlNetPipeline.check_inputs`.
            ConfigError: other numbers of images than of kinds, unknown kinds, and likewise.
            UnsupportedError: IP-Adapter arguments.
        """
        self._control_mode = control_mode
        self._check(
            prompt, prompt_2, image, None, negative_prompt, negative_prompt_2, prompt_embeds, negative_prompt_embeds, pooled_prompt_embeds,
            negative_pooled_prompt_embeds, ip_adapter_image, ip_adapter_image_embeds, controlnet_conditioning_scale,
            control_guidance_start, control_guidance_end, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
