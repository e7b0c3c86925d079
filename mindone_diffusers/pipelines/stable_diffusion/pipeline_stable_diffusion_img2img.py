"""Image to image with Stable Diffusion 1 and 2 (arXiv:2108.01073, arXiv:2112.10752)."""

from collections.abc import Callable
from typing import Any

from mindspore import Tensor

from ...callbacks import MultiPipelineCallbacks, PipelineCallback
from ...image_processor import PipelineImageInput, check_output_type
from ..denoising import denoise
from ..images import check_strength, retrieve_latents  # noqa: F401  (where PyTorch diffusers has it)
from .base import StableDiffusionImageBase
from .pipeline_output import StableDiffusionPipelineOutput


class StableDiffusionImg2ImgPipeline(StableDiffusionImageBase):
    """Changes an image as a prompt says: noise is added to it, and taken away again under the prompt's guidance.

    The components are `StableDiffusionBase`'s.
    """

    _scheduler_corrections = {"steps_offset": 1, "clip_sample": False}

    def __call__(
        self,
        prompt: str | list[str] | None = None,
        image: PipelineImageInput = None,
        strength: float = 0.8,
        num_inference_steps: int | None = 50,
        timesteps: list[int] | None = None,
        sigmas: list[float] | None = None,
        guidance_scale: float | None = 7.5,
        negative_prompt: str | list[str] | None = None,
        num_images_per_prompt: int | None = 1,
        eta: float | None = 0.0,
        generator: Any = None,
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
            prompt: what to draw: one text, or a list.
            image: what to start from: images in any of `VaeImageProcessor.preprocess`'s formats, or latents (images, 4, h, w). The
                number of images drawn has to be a multiple of theirs.
            strength: how much of the image to replace, from 0 to 1: the part of the steps that is taken.
            num_inference_steps: number of denoising steps of strength 1.

        Raises:
            ConfigError: arguments that do not fit together, or a strength that leaves no steps.
            UnsupportedError: IP-Adapter arguments.
        """
        callback_on_step_end_tensor_inputs = self._begin(
            guidance_scale, clip_skip, cross_attention_kwargs, callback_on_step_end, callback_on_step_end_tensor_inputs
        )
        self.check_inputs(
            prompt, strength, None, negative_prompt, prompt_embeds, negative_prompt_embeds, ip_adapter_image, ip_adapter_image_embeds,
            callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        check_output_type(output_type)

        tensors, images = self._embed(prompt, negative_prompt, num_images_per_prompt, prompt_embeds, negative_prompt_embeds)
        dtype = tensors["prompt_embeds"].dtype
        image = self.image_processor.preprocess(image)
        timesteps, num_inference_steps = self._set_timesteps(num_inference_steps, strength, timesteps, sigmas)
        tensors["latents"] = self.prepare_latents(image, timesteps[:1], images, 1, dtype, self.device, generator)
        latents = denoise(
            self, timesteps, num_inference_steps, tensors, self._predictor(), self.prepare_extra_step_kwargs(generator, eta),
            callback_on_step_end, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        return self._finish(*self._decode(latents, output_type, dtype, generator), return_dict)

    def check_inputs(
        self,
        prompt: Any,
        strength: float,
        callback_steps: int | None,
        negative_prompt: Any = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        ip_adapter_image: Any = None,
        ip_adapter_image_embeds: Any = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> None:
        """Check the arguments of `__call__`.

        Raises:
            ConfigError: a strength outside of [0, 1], and the cases of `StableDiffusionPipeline.check_inputs`.
            UnsupportedError: IP-Adapter arguments.
        """
        check_strength(strength)
        self._check_prompts(
            prompt, callback_steps, negative_prompt, prompt_embeds, negative_prompt_embeds, ip_adapter_image, ip_adapter_image_embeds,
            callback_on_step_end_tensor_inputs,
        )  # fmt: skip
