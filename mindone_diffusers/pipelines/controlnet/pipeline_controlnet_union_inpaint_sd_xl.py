"""Inpainting with Stable Diffusion XL and ControlNets for several kinds of images (https://github.com/xinsir6/ControlNetPlus)."""

from collections.abc import Callable
from typing import Any

from mindspore import Tensor

from ...callbacks import MultiPipelineCallbacks, PipelineCallback
from ...core.errors import ConfigError
from ...image_processor import PipelineImageInput
from ..control import UnionMixin
from ..images import check_steps, retrieve_latents  # noqa: F401  (where PyTorch diffusers has it)
from ..inpainting import check_mask_crop
from ..stable_diffusion_xl.pipeline_output import StableDiffusionXLPipelineOutput
from ..stable_diffusion_xl.pipeline_stable_diffusion_xl_img2img import StableDiffusionXLImg2ImgPipeline
from .pipeline_controlnet_inpaint_sd_xl import StableDiffusionXLControlNetInpaintPipeline


class StableDiffusionXLControlNetUnionInpaintPipeline(UnionMixin, StableDiffusionXLControlNetInpaintPipeline):
    """Paints the masked part of an image as a prompt says, steered by images of several kinds, with a UNet of 4 channels; `controlnet` is a
    `ControlNetUnionModel`, or a list of them. Other components and arguments are described at `StableDiffusionXLControlNetBase`."""

    _callback_tensor_inputs = [*StableDiffusionXLImg2ImgPipeline._callback_tensor_inputs, "mask", "control_image"]

    def __call__(
        self,
        prompt: str | list[str] | None = None,
        prompt_2: str | list[str] | None = None,
        image: PipelineImageInput = None,
        mask_image: PipelineImageInput = None,
        control_image: PipelineImageInput | list[PipelineImageInput] = None,
        height: int | None = None,
        width: int | None = None,
        padding_mask_crop: int | None = None,
        strength: float = 0.9999,
        num_inference_steps: int = 50,
        denoising_start: float | None = None,
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
        ip_adapter_image: PipelineImageInput | None = None,
        ip_adapter_image_embeds: list[Tensor] | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: dict[str, Any] | None = None,
        controlnet_conditioning_scale: float | list[float] = 1.0,
        guess_mode: bool = False,
        control_guidance_start: float | list[float] = 0.0,
        control_guidance_end: float | list[float] = 1.0,
        control_mode: int | list[int] | list[list[int]] | None = None,
        guidance_rescale: float = 0.0,
        original_size: tuple[int, int] | None = None,
        crops_coords_top_left: tuple[int, int] = (0, 0),
        target_size: tuple[int, int] | None = None,
        aesthetic_score: float = 6.0,
        negative_aesthetic_score: float = 2.5,
        clip_skip: int | None = None,
        callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006  (upstream's default; never changed)
    ) -> StableDiffusionXLPipelineOutput | tuple:
        """Draw images; arguments that are not named here are `StableDiffusionXLControlNetInpaintPipeline`'s.

        Args:
            control_image: what steers the ControlNet: images in any of `VaeImageProcessor.preprocess`'s formats, one or as many as
                prompts; or a list of them, one entry for each kind. Of several ControlNets, one entry for each.
            controlnet_conditioning_scale, control_guidance_start, control_guidance_end, control_mode: see
                `StableDiffusionXLControlNetUnionPipeline`.
            guess_mode: see `StableDiffusionControlNetPipeline`. (With guidance, PyTorch diffusers fails.)

        Raises:
            ConfigError: arguments that do not fit together, a strength that leaves no steps, or a UNet of other than 4 channels.
            TypeError: see `check_inputs`.
            UnsupportedError: IP-Adapter arguments.
        """
        if self.unet.config.in_channels != 4:
            raise ConfigError(f"the UNet takes {self.unet.config.in_channels} channels; this pipeline shows it no mask: expected 4")
        self._control_mode = control_mode
        return super().__call__(
            prompt, prompt_2, image, mask_image, control_image, height, width, padding_mask_crop, strength, num_inference_steps,
            denoising_start, denoising_end, guidance_scale, negative_prompt, negative_prompt_2, num_images_per_prompt, eta, generator,
            latents, prompt_embeds, negative_prompt_embeds, ip_adapter_image, ip_adapter_image_embeds, pooled_prompt_embeds,
            negative_pooled_prompt_embeds, output_type, return_dict, cross_attention_kwargs, controlnet_conditioning_scale, guess_mode,
            control_guidance_start, control_guidance_end, guidance_rescale, original_size, crops_coords_top_left, target_size,
            aesthetic_score, negative_aesthetic_score, clip_skip, callback_on_step_end, callback_on_step_end_tensor_inputs,
        )  # fmt: skip

    def check_inputs(
        self,
        prompt: Any,
        prompt_2: Any,
        image: Any,
        mask_image: Any,
        strength: float,
        num_inference_steps: int,
        callback_steps: int | None,
        output_type: str | None,
        negative_prompt: Any = None,
        negative_prompt_2: Any = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        ip_adapter_image: Any = None,
        ip_adapter_image_embeds: Any = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        controlnet_conditioning_scale: float | list[float] = 1.0,
        control_guidance_start: float | list[float] = 0.0,
        control_guidance_end: float | list[float] = 1.0,
        control_mode: int | list[int] | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
        padding_mask_crop: int | None = None,
    ) -> None:
        """Check the arguments of `__call__`, with the control image as `image`.

        Raises:
            TypeError: no `control_mode`, and the cases of `StableDiffusionXLControlNetInpaintPipeline.check_inputs`.
            ConfigError: other numbers of images than of kinds, unknown kinds, and likewise.
            UnsupportedError: IP-Adapter arguments.
        """
        self._control_mode = control_mode
        check_steps(strength, num_inference_steps)
        check_mask_crop(padding_mask_crop, image, mask_image, output_type)
        self._check(
            prompt, prompt_2, image, callback_steps, negative_prompt, negative_prompt_2, prompt_embeds, negative_prompt_embeds,
            pooled_prompt_embeds, negative_pooled_prompt_embeds, ip_adapter_image, ip_adapter_image_embeds, controlnet_conditioning_scale,
            control_guidance_start, control_guidance_end, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
