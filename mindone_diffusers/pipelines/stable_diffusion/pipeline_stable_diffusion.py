"""Text to image with Stable Diffusion 1 and 2 (arXiv:2112.10752)."""

from collections.abc import Callable
from typing import Any

from mindspore import Tensor

from ...callbacks import MultiPipelineCallbacks, PipelineCallback
from ...image_processor import PipelineImageInput, check_output_type
from ..denoising import denoise
from ..guidance import rescale_noise_cfg  # noqa: F401  (where PyTorch diffusers has it)
from ..guided import check_size
from ..schedule import retrieve_timesteps
from .base import StableDiffusionBase
from .pipeline_output import StableDiffusionPipelineOutput


class StableDiffusionPipeline(StableDiffusionBase):
    """Draws images of prompts; the components are `StableDiffusionBase`'s."""

    _scheduler_corrections = {"steps_offset": 1, "clip_sample": False}

    def __call__(
        self,
        prompt: str | list[str] | None = None,
        height: int | None = None,
        width: int | None = None,
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
    ) -> StableDiffusionPipelineOutput | tuple:
        """Draw images.

        Args:
            prompt: what to draw: one text, or a list.
            height: in pixels, a multiple of 8. Without both height and width, the UNet's `sample_size` times `vae_scale_factor`.
            width: likewise.
            num_inference_steps: number of denoising steps.
            timesteps: the steps themselves, descending, for schedulers that take them.
            sigmas: the noise levels of the steps, for schedulers that take them.
            guidance_scale: how strictly to follow the prompt; there is guidance above 1.
            negative_prompt: what not to draw; a text or list as `prompt` is. Without guidance it has no effect.
            num_images_per_prompt: images of each prompt.
            eta: noise added by `DDIMScheduler` (arXiv:2010.02502), from 0 to 1; other schedulers ignore it.
            generator: `numpy.random.Generator`, this library's `Generator`, or a list of one for each image.
            latents: standard normal numbers to start from, (images, channels, height / scale, width / scale).
            prompt_embeds: embeddings instead of a prompt, (prompts, tokens, size).
            negative_prompt_embeds: embeddings instead of a negative prompt.
            ip_adapter_image: not supported yet.
            ip_adapter_image_embeds: not supported yet.
            output_type: "pil", "np", "ms" (a tensor; "pt" is the same) or "latent".
            return_dict: return a `StableDiffusionPipelineOutput`, else a tuple of its fields.
            cross_attention_kwargs: passed to the UNet's attention processors.
            guidance_rescale: bring the guided prediction's contrast back (arXiv:2305.08891), from 0 to 1.
            clip_skip: how many of CLIP's last layers to leave out.
            callback_on_step_end: called after each step as `callback(pipeline, step, timestep, tensors)`; the tensors in the dictionary
                that it returns replace the pipeline's.
            callback_on_step_end_tensor_inputs: which of `_callback_tensor_inputs` it is given.

        Raises:
            ConfigError: arguments that do not fit together; see `check_inputs`.
            UnsupportedError: IP-Adapter arguments.
        """
        callback_on_step_end_tensor_inputs = self._begin(
            guidance_scale, clip_skip, cross_attention_kwargs, callback_on_step_end, callback_on_step_end_tensor_inputs, guidance_rescale
        )
        height, width = self._size(height, width)
        self.check_inputs(
            prompt, height, width, None, negative_prompt, prompt_embeds, negative_prompt_embeds, ip_adapter_image,
            ip_adapter_image_embeds, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        check_output_type(output_type)

        tensors, images = self._embed(prompt, negative_prompt, num_images_per_prompt, prompt_embeds, negative_prompt_embeds)
        timesteps, num_inference_steps = retrieve_timesteps(self.scheduler, num_inference_steps, None, timesteps, sigmas)
        self._num_timesteps, dtype = len(timesteps), tensors["prompt_embeds"].dtype
        tensors["latents"] = self.prepare_latents(
            images, self.unet.config.in_channels, height, width, dtype, self.device, generator, latents
        )
        latents = denoise(
            self, timesteps, num_inference_steps, tensors, self._predictor(), self.prepare_extra_step_kwargs(generator, eta),
            callback_on_step_end, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        return self._finish(*self._decode(latents, output_type, dtype, generator), return_dict)

    def _size(self, height: int | None, width: int | None) -> tuple[int, int]:
        return (height, width) if height and width else self._default_size()

    def check_inputs(
        self,
        prompt: Any,
        height: int,
        width: int,
        callback_steps: int | None = None,
        negative_prompt: Any = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        ip_adapter_image: Any = None,
        ip_adapter_image_embeds: Any = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> None:
        """Check the arguments of `__call__`.

        Raises:
            ConfigError: a size that is not a multiple of 8, an unknown callback tensor, both or neither of a prompt and its embeddings,
                a prompt of another type, or embeddings of different shapes.
            UnsupportedError: IP-Adapter arguments.
        """
        check_size(height, width)
        self._check_prompts(
            prompt, callback_steps, negative_prompt, prompt_embeds, negative_prompt_embeds, ip_adapter_image, ip_adapter_image_embeds,
            callback_on_step_end_tensor_inputs,
        )  # fmt: skip
