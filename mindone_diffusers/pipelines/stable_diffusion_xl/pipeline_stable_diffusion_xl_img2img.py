"""Image to image with Stable Diffusion XL, and its refiner (arXiv:2307.01952, arXiv:2108.01073)."""

from collections.abc import Callable
from typing import Any

from mindspore import Tensor

from ...callbacks import MultiPipelineCallbacks, PipelineCallback
from ...core.errors import ConfigError
from ...image_processor import PipelineImageInput, check_output_type
from ..denoising import denoise
from ..images import check_steps_left, check_strength, latents_of_image, retrieve_latents  # noqa: F401  (where PyTorch diffusers has it)
from ..schedule import end_early, retrieve_timesteps
from .base import StableDiffusionXLImageBase
from .pipeline_output import StableDiffusionXLPipelineOutput


class StableDiffusionXLImg2ImgPipeline(StableDiffusionXLImageBase):
    """Changes an image as a prompt says: noise is added to it, and taken away again under the prompt's guidance. As a refiner it takes the
    rest of the noise from another pipeline's latents. Components and arguments are described at `StableDiffusionXLBase`."""

    def __call__(
        self,
        prompt: str | list[str] | None = None,
        prompt_2: str | list[str] | None = None,
        image: PipelineImageInput = None,
        strength: float = 0.3,
        num_inference_steps: int = 50,
        timesteps: list[int] | None = None,
        sigmas: list[float] | None = None,
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
        pooled_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        ip_adapter_image: PipelineImageInput | None = None,
        ip_adapter_image_embeds: list[Tensor] | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: dict[str, Any] | None = None,
        guidance_rescale: float = 0.0,
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
        """Draw images; arguments that are not named here are `StableDiffusionXLPipeline`'s.

        Args:
            image: what to start from: images in any of `VaeImageProcessor.preprocess`'s formats, or latents (images, 4, h, w). The
                number of images drawn has to be a multiple of theirs.
            strength: how much of the image to replace, from 0 to 1: the part of the steps that is taken.
            num_inference_steps: number of denoising steps of strength 1.
            denoising_start: the part of the noise levels, between 0.0 and 1.0, that another pipeline has done (its `denoising_end`) and
                whose latents `image` is; then no noise is added, and `strength` has no effect.
            denoising_end: likewise, where to stop.
            latents: noisy latents to start from instead of the image's, taken as they are.
            original_size: height and width that the picture is to look like it was scaled from; by default its own.
            crops_coords_top_left: rows and columns that it is to look like were cut off.
            target_size: height and width that it is to be composed for; by default its own. The refiner takes none.
            negative_original_size: for the negative prompt; by default `original_size`.
            negative_crops_coords_top_left: likewise, of the refiner; others take `crops_coords_top_left`.
            negative_target_size: likewise; by default `target_size`.
            aesthetic_score: how well the picture is to be liked, from 1 to 10, of pipelines with `requires_aesthetics_score`.
            negative_aesthetic_score: the same for the negative prompt.

        Raises:
            ConfigError: arguments that do not fit together, or a strength that leaves no steps.
            UnsupportedError: IP-Adapter arguments.
        """
        callback_on_step_end_tensor_inputs = self._begin(
            guidance_scale, clip_skip, cross_attention_kwargs, callback_on_step_end, callback_on_step_end_tensor_inputs, guidance_rescale
        )
        self._set_range(denoising_start, denoising_end)
        self.check_inputs(
            prompt, prompt_2, strength, num_inference_steps, None, negative_prompt, negative_prompt_2, prompt_embeds,
            negative_prompt_embeds, ip_adapter_image, ip_adapter_image_embeds, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        check_output_type(output_type)

        tensors, images = self._embed(
            prompt, prompt_2, negative_prompt, negative_prompt_2, num_images_per_prompt, prompt_embeds, negative_prompt_embeds,
            pooled_prompt_embeds, negative_pooled_prompt_embeds,
        )  # fmt: skip
        dtype = tensors["prompt_embeds"].dtype
        image = self.image_processor.preprocess(image)
        _, num_inference_steps = retrieve_timesteps(self.scheduler, num_inference_steps, None, timesteps, sigmas)
        timesteps, num_inference_steps = self.get_timesteps(num_inference_steps, strength, self.device, denoising_start)
        if latents is None:
            if denoising_start is None:
                check_steps_left(len(timesteps), strength)
            latents = self.prepare_latents(image, timesteps[:1], images, 1, dtype, self.device, generator, denoising_start is None)
        tensors["latents"] = latents
        tensors["add_time_ids"] = self._micro_conditions(
            tensors, images, original_size, crops_coords_top_left, target_size, negative_original_size, negative_crops_coords_top_left,
            negative_target_size, aesthetic_score, negative_aesthetic_score,
        )  # fmt: skip
        timesteps, num_inference_steps = end_early(self.scheduler, timesteps, num_inference_steps, denoising_end)
        self._num_timesteps = len(timesteps)
        latents = denoise(
            self, timesteps, num_inference_steps, tensors, self._predictor(), self.prepare_extra_step_kwargs(generator, eta),
            callback_on_step_end, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        return self._finish(self._decode(latents, output_type), return_dict)

    def check_inputs(
        self,
        prompt: Any,
        prompt_2: Any,
        strength: float,
        num_inference_steps: int,
        callback_steps: int | None,
        negative_prompt: Any = None,
        negative_prompt_2: Any = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        ip_adapter_image: Any = None,
        ip_adapter_image_embeds: Any = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> None:
        """Check the arguments of `__call__`.

        Raises:
            ConfigError: a strength outside of [0, 1], no whole number of steps, and the cases of `StableDiffusionXLPipeline.check_inputs`
                but for sizes and pooled embeddings.
            UnsupportedError: IP-Adapter arguments.
        """
        check_strength(strength)
        if not isinstance(num_inference_steps, int) or num_inference_steps <= 0:
            raise ConfigError(f"num_inference_steps is {num_inference_steps!r}; expected a positive integer")
        self._check_both_prompts(
            prompt, prompt_2, callback_steps, negative_prompt, negative_prompt_2, prompt_embeds, negative_prompt_embeds, ip_adapter_image,
            ip_adapter_image_embeds, callback_on_step_end_tensor_inputs,
        )  # fmt: skip

    def prepare_latents(
        self,
        image: Tensor,
        timestep: Any,
        batch_size: int,
        num_images_per_prompt: int,
        dtype: Any,
        device: Any,
        generator: Any = None,
        add_noise: bool = True,
    ) -> Tensor:
        """See `images.latents_of_image`. `device` is not used."""
        batch_size *= num_images_per_prompt
        return latents_of_image(self._encode, self.scheduler, image, timestep, batch_size, dtype, generator, add_noise)
