"""Text to image in a few steps with latent consistency models (arXiv:2310.04378)."""

from collections.abc import Callable
from typing import Any

from mindspore import Tensor

from ...callbacks import MultiPipelineCallbacks, PipelineCallback
from ...image_processor import PipelineImageInput, check_output_type
from ..denoising import denoise
from ..guided import check_size
from ..schedule import retrieve_timesteps
from ..stable_diffusion.base import StableDiffusionBase
from ..stable_diffusion.pipeline_output import StableDiffusionPipelineOutput


class LatentConsistencyBase(StableDiffusionBase):
    """Base of the pipelines whose UNet is distilled to predict clean latents, and takes the guidance scale as an input.

    The components are `StableDiffusionBase`'s, with an `LCMScheduler`.
    """

    _callback_tensor_inputs = ["latents", "denoised", "prompt_embeds", "w_embedding"]

    @property
    def do_classifier_free_guidance(self) -> bool:
        return False


class LatentConsistencyModelPipeline(LatentConsistencyBase):
    """Draws images of prompts in a few steps."""

    def __call__(
        self,
        prompt: str | list[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 4,
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
        """Draw images; arguments that are not named here are `StableDiffusionPipeline`'s.

        Args:
            num_inference_steps: number of denoising steps, 1 to 8.
            original_inference_steps: of the schedule that they are taken from, by default the scheduler's.
            guidance_scale: how strictly to follow the prompt, an input of the UNet.

        Raises:
            ConfigError: the cases of `StableDiffusionPipeline.check_inputs`.
            UnsupportedError: IP-Adapter arguments.
        """
        callback_on_step_end_tensor_inputs = self._begin(
            guidance_scale, clip_skip, cross_attention_kwargs, callback_on_step_end, callback_on_step_end_tensor_inputs
        )
        default = self._default_size()
        height, width = height or default[0], width or default[1]
        self.check_inputs(
            prompt, height, width, None, prompt_embeds, ip_adapter_image, ip_adapter_image_embeds, callback_on_step_end_tensor_inputs
        )
        check_output_type(output_type)

        tensors, images = self._embed(prompt, None, num_images_per_prompt, prompt_embeds, None)
        timesteps, num_inference_steps = retrieve_timesteps(
            self.scheduler, num_inference_steps, None, timesteps, original_inference_steps=original_inference_steps
        )
        self._num_timesteps, dtype = len(timesteps), tensors["prompt_embeds"].dtype
        tensors["latents"] = self.prepare_latents(
            images, self.unet.config.in_channels, height, width, dtype, self.device, generator, latents
        )
        tensors["denoised"] = None
        denoise(
            self, timesteps, num_inference_steps, tensors, self._predictor(), self.prepare_extra_step_kwargs(generator, None),
            callback_on_step_end, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        return self._finish(*self._decode(tensors["denoised"].astype(dtype), output_type, dtype, None), return_dict)

    def check_inputs(
        self,
        prompt: Any,
        height: int,
        width: int,
        callback_steps: int | None,
        prompt_embeds: Tensor | None = None,
        ip_adapter_image: Any = None,
        ip_adapter_image_embeds: Any = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> None:
        """Check the arguments of `__call__`; raises as `StableDiffusionPipeline.check_inputs`."""
        check_size(height, width)
        self._check_prompts(
            prompt, callback_steps, None, prompt_embeds, None, ip_adapter_image, ip_adapter_image_embeds, callback_on_step_end_tensor_inputs
        )
