"""Editing an image as an instruction says, InstructPix2Pix (arXiv:2211.09800)."""

from collections.abc import Callable
from typing import Any

from mindspore import Tensor

from ...callbacks import MultiPipelineCallbacks, PipelineCallback
from ...core.errors import ConfigError
from ...image_processor import PipelineImageInput, check_output_type
from ..denoising import denoise
from ..editing import EditingPipeline, edited_image
from ..schedule import retrieve_timesteps
from .base import StableDiffusionBase
from .pipeline_output import StableDiffusionPipelineOutput


class StableDiffusionInstructPix2PixPipeline(EditingPipeline, StableDiffusionBase):
    """Edits an image: the UNet is shown it beside the latents (8 channels), and guided by the instruction and by the image.

    The components are `StableDiffusionBase`'s.
    """

    _callback_tensor_inputs = ["latents", "prompt_embeds", "image_latents"]

    def __call__(
        self,
        prompt: str | list[str] | None = None,
        image: PipelineImageInput = None,
        num_inference_steps: int = 100,
        guidance_scale: float = 7.5,
        image_guidance_scale: float = 1.5,
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
        callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006  (upstream's default; never changed)
        cross_attention_kwargs: dict[str, Any] | None = None,
    ) -> StableDiffusionPipelineOutput | tuple:
        """Draw images; arguments that are not named here are `StableDiffusionPipeline`'s.

        Args:
            prompt: the instruction: one text, or a list.
            image: what to edit: images in any of `VaeImageProcessor.preprocess`'s formats, or latents.
            guidance_scale: how strictly to follow the instruction; there is guidance above 1.
            image_guidance_scale: how strictly to keep to the image; guidance needs at least 1.

        Raises:
            ConfigError: arguments that do not fit together, no image, or a UNet of other channels than latents and image have.
            UnsupportedError: IP-Adapter arguments.
        """
        callback_on_step_end_tensor_inputs = self._begin(
            guidance_scale, None, cross_attention_kwargs, callback_on_step_end, callback_on_step_end_tensor_inputs
        )
        self._image_guidance_scale = image_guidance_scale
        self.check_inputs(
            prompt, None, negative_prompt, prompt_embeds, negative_prompt_embeds, ip_adapter_image, ip_adapter_image_embeds,
            callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        check_output_type(output_type)
        if image is None:
            raise ConfigError("image is None: pass the image to edit")

        tensors, images = self._embed(prompt, negative_prompt, num_images_per_prompt, prompt_embeds, negative_prompt_embeds)
        guided, dtype = self.do_classifier_free_guidance, tensors["prompt_embeds"].dtype
        image = self.image_processor.preprocess(image)
        timesteps, num_inference_steps = retrieve_timesteps(self.scheduler, num_inference_steps)
        self._num_timesteps = len(timesteps)
        tensors["image_latents"] = shown = self.prepare_image_latents(image, images, 1, dtype, self.device, guided)
        self._check_shown(shown, "InstructPix2Pix model")
        channels, scale = self.vae.config.latent_channels, self.vae_scale_factor
        tensors["latents"] = self.prepare_latents(
            images, channels, shown.shape[2] * scale, shown.shape[3] * scale, dtype, self.device, generator, latents
        )

        latents = denoise(
            self, timesteps, num_inference_steps, tensors, self._predictor(edited_image), self.prepare_extra_step_kwargs(generator, eta),
            callback_on_step_end, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        return self._finish(*self._decode(latents, output_type, dtype, None), return_dict)

    def check_inputs(
        self,
        prompt: Any,
        callback_steps: int | None,
        negative_prompt: Any = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        ip_adapter_image: Any = None,
        ip_adapter_image_embeds: Any = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> None:
        """Check the arguments of `__call__`; raises as `StableDiffusionPipeline.check_inputs`."""
        self._check_prompts(
            prompt, callback_steps, negative_prompt, prompt_embeds, negative_prompt_embeds, ip_adapter_image, ip_adapter_image_embeds,
            callback_on_step_end_tensor_inputs,
        )  # fmt: skip
