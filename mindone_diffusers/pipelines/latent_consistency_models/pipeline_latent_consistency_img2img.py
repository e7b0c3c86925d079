"""Image to image in a few steps with latent consistency models (arXiv:2310.04378)."""

from collections.abc import Callable
from typing import Any

from mindspore import Tensor

from ...callbacks import MultiPipelineCallbacks, PipelineCallback
from ...image_processor import PipelineImageInput, check_output_type
from ..denoising import denoise
from ..images import check_strength
from ..schedule import retrieve_timesteps
from ..stable_diffusion.base import StableDiffusionImageBase
from ..stable_diffusion.pipeline_output import StableDiffusionPipelineOutput
from .pipeline_latent_consistency_text2img import LatentConsistencyBase


class LatentConsistencyModelImg2ImgPipeline(LatentConsistencyBase, StableDiffusionImageBase):
    """Changes an image as a prompt says, in a few steps."""

    def __call__(
        self,
        prompt: str | list[str] | None = None,
        image: PipelineImageInput = None,
        num_inference_steps: int = 4,
        strength: float = 0.8,
        original_inference_steps: int | None = None,
        timesteps: list[int] | None = None,
        guidance_scale: float = 8.5,
        num_images_per_prompt: int | None = 1,
        generator: Any = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        ip_adapter_image: PipelineImageInput | None = None,
        ip_adapter_image_embeds: list[Tensor] | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: dict[str, Any] | None = None,
        clip_skip: int | None = None,
        callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006  (upstream's default; never changed)
    ) -> StableDiffusionPipelineOutput | tuple:
        """Draw images; arguments that are not named here are `LatentConsistencyModelPipeline`'s.

        Args:
            image: what to start from, see `StableDiffusionImg2ImgPipeline`.
            strength: how much of the image to replace, from 0 to 1: how noisy the steps begin.
            latents: noisy latents to start from, instead of the image's.

        Raises:
            ConfigError: the cases of `StableDiffusionImg2ImgPipeline.check_inputs`.
            UnsupportedError: IP-Adapter arguments.
        """
        callback_on_step_end_tensor_inputs = self._begin(
            guidance_scale, clip_skip, cross_attention_kwargs, callback_on_step_end, callback_on_step_end_tensor_inputs
        )
        self.check_inputs(
            prompt, strength, None, prompt_embeds, ip_adapter_image, ip_adapter_image_embeds, callback_on_step_end_tensor_inputs
        )
        check_output_type(output_type)

        tensors, images = self._embed(prompt, None, num_images_per_prompt, prompt_embeds, None)
        image = self.image_processor.preprocess(image)
        timesteps, num_inference_steps = retrieve_timesteps(
            self.scheduler, num_inference_steps, None, timesteps, original_inference_steps=original_inference_steps, strength=strength
        )
        self._num_timesteps, dtype = len(timesteps), tensors["prompt_embeds"].dtype
        if latents is None:
            latents = self.prepare_latents(image, timesteps[:1], images, 1, dtype, self.device, generator)
        tensors |= {"latents": latents.astype(dtype), "denoised": None}
        denoise(
            self, timesteps, num_inference_steps, tensors, self._predictor(), self.prepare_extra_step_kwargs(generator, None),
            callback_on_step_end, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        return self._finish(*self._decode(tensors["denoised"].astype(dtype), output_type, dtype, None), return_dict)

    def check_inputs(
        self,
        prompt: Any,
        strength: float,
        callback_steps: int | None,
        prompt_embeds: Tensor | None = None,
        ip_adapter_image: Any = None,
        ip_adapter_image_embeds: Any = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> None:
        """Check the arguments of `__call__`; raises as `StableDiffusionImg2ImgPipeline.check_inputs`."""
        check_strength(strength)
        self._check_prompts(
            prompt, callback_steps, None, prompt_embeds, None, ip_adapter_image, ip_adapter_image_embeds, callback_on_step_end_tensor_inputs
        )
