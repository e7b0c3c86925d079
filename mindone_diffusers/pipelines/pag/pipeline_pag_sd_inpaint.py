"""Inpainting with Stable Diffusion 1 and 2 with perturbed attention guidance (arXiv:2403.17377)."""

from collections.abc import Callable
from typing import Any

from mindspore import Tensor

from ...callbacks import MultiPipelineCallbacks, PipelineCallback
from ...image_processor import PipelineImageInput
from ..stable_diffusion.base import StableDiffusionBase
from ..stable_diffusion.pipeline_output import StableDiffusionPipelineOutput
from ..stable_diffusion.pipeline_stable_diffusion_inpaint import StableDiffusionInpaintPipeline
from .pag_utils import PAGMixin, with_pag_layers


class StableDiffusionPAGInpaintPipeline(PAGMixin, StableDiffusionInpaintPipeline):
    """`StableDiffusionInpaintPipeline` with perturbed attention guidance, `guidance_rescale`, and by default a strength just below 1.

    Both `guidance_rescale` and `padding_mask_crop` work with perturbed attention; in PyTorch diffusers they raise an error.
    """

    _scheduler_corrections = {"steps_offset": 1, "clip_sample": False}
    _callback_tensor_inputs = StableDiffusionBase._callback_tensor_inputs

    __init__ = with_pag_layers(StableDiffusionInpaintPipeline.__init__)

    def __call__(
        self,
        prompt: str | list[str] | None = None,
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
        guidance_rescale: float = 0.0,
        clip_skip: int | None = None,
        callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006  (upstream's default; never changed)
        pag_scale: float = 3.0,
        pag_adaptive_scale: float = 0.0,
    ) -> StableDiffusionPipelineOutput | tuple:
        """Draw images; arguments are `StableDiffusionInpaintPipeline`'s and `PAGMixin`'s.

        Args:
            guidance_rescale: bring the guided prediction's contrast back (arXiv:2305.08891), from 0 to 1.
        """
        self._own_guidance_rescale = guidance_rescale
        with self._perturbing(pag_scale, pag_adaptive_scale, guidance_scale):
            return super().__call__(
                prompt, image, mask_image, masked_image_latents, height, width, padding_mask_crop, strength, num_inference_steps,
                timesteps, sigmas, guidance_scale, negative_prompt, num_images_per_prompt, eta, generator, latents, prompt_embeds,
                negative_prompt_embeds, ip_adapter_image, ip_adapter_image_embeds, output_type, return_dict, cross_attention_kwargs,
                clip_skip, callback_on_step_end, callback_on_step_end_tensor_inputs,
            )  # fmt: skip

    @property
    def guidance_rescale(self) -> float:
        return self._own_guidance_rescale  # the plain pipeline's call knows none
