"""Image to image with Stable Diffusion XL and ControlNets for several kinds of images (https://github.com/xinsir6/ControlNetPlus)."""

from collections.abc import Callable
from typing import Any

from mindspore import Tensor

from ...callbacks import MultiPipelineCallbacks, PipelineCallback
from ...image_processor import PipelineImageInput
from ..control import UnionMixin
from ..images import check_steps, retrieve_latents  # noqa: F401  (where PyTorch diffusers has it)
from ..stable_diffusion_xl.pipeline_output import StableDiffusionXLPipelineOutput
from ..stable_diffusion_xl.pipeline_stable_diffusion_xl_img2img import StableDiffusionXLImg2ImgPipeline
from .pipeline_controlnet_sd_xl_img2img import StableDiffusionXLControlNetImg2ImgPipeline


class StableDiffusionXLControlNetUnionImg2ImgPipeline(UnionMixin, StableDiffusionXLControlNetImg2ImgPipeline):
    """Changes an image as a prompt says, steered by images of several kinds; `controlnet` is a `ControlNetUnionModel`, or a list of them.
    Other components and arguments are described at `StableDiffusionXLControlNetBase`."""

    _callback_tensor_inputs = [*StableDiffusionXLImg2ImgPipeline._callback_tensor_inputs, "control_image"]

    def __call__(
        self,
        prompt: str | list[str] | None = None,
        prompt_2: str | list[str] | None = None,
        image: PipelineImageInput = None,
        control_image: PipelineImageInput | list[PipelineImageInput] = None,
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
        control_mode: int | list[int] | list[list[int]] | None = None,
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
        """Draw images; arguments that are not named here are `StableDiffusionXLControlNetImg2ImgPipeline`'s.

        Args:
            control_image: what steers the ControlNet: images in any of `VaeImageProcessor.preprocess`'s formats, one or as many as
                prompts; or a list of them, one entry for each kind. Of several ControlNets, one entry for each.
            controlnet_conditioning_scale, control_guidance_start, control_guidance_end, control_mode: see
                `StableDiffusionXLControlNetUnionPipeline`.
            guess_mode: see `StableDiffusionControlNetPipeline`. (With guidance, PyTorch diffusers fails.)

        Raises:
            ConfigError: arguments that do not fit together, or a strength that leaves no steps.
            TypeError: see `check_inputs`.
            UnsupportedError: IP-Adapter arguments.
        """
        self._control_mode = control_mode
        return super().__call__(
            prompt, prompt_2, image, control_image, height, width, strength, num_inference_steps, guidance_scale, negative_prompt,
            negative_prompt_2, num_images_per_prompt, eta, generator, latents, prompt_embeds, negative_prompt_embeds, pooled_prompt_embeds,
            negative_pooled_prompt_embeds, ip_adapter_image, ip_adapter_image_embeds, output_type, return_dict, cross_attention_kwargs,
            controlnet_conditioning_scale, guess_mode, control_guidance_start, control_guidance_end, original_size, crops_coords_top_left,
            target_size, negative_original_size, negative_crops_coords_top_left, negative_target_size, aesthetic_score,
            negative_aesthetic_score, clip_skip, callback_on_step_end, callback_on_step_end_tensor_inputs,
        )  # fmt: skip

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
        control_mode: int | list[int] | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> None:
        """Check the arguments of `__call__`, with the control image as `image`.

        Raises:
            TypeError: no `control_mode`, and the cases of `StableDiffusionXLControlNetImg2ImgPipeline.check_inputs`.
            ConfigError: other numbers of images than of kinds, unknown kinds, and likewise.
            UnsupportedError: IP-Adapter arguments.
        """
        self._control_mode = control_mode
        check_steps(strength, num_inference_steps)
        self._check(
            prompt, prompt_2, image, callback_steps, negative_prompt, negative_prompt_2, prompt_embeds, negative_prompt_embeds,
            pooled_prompt_embeds, negative_pooled_prompt_embeds, ip_adapter_image, ip_adapter_image_embeds, controlnet_conditioning_scale,
            control_guidance_start, control_guidance_end, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
