"""Text to image under a control image with Stable Diffusion 1 and 2 and T2I-Adapters (arXiv:2302.08453)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mindspore import Tensor

from ...image_processor import PipelineImageInput, check_output_type
from ...models.adapter import MultiAdapter, T2IAdapter
from ...models.autoencoders.autoencoder_kl import AutoencoderKL
from ...models.unets.unet_2d_condition import UNet2DConditionModel
from ...schedulers.scheduling_utils import KarrasDiffusionSchedulers
from ...text_encoders.clip import CLIPTextModel
from ..denoising import denoise
from ..guided import check_callback_steps, check_size
from ..schedule import retrieve_timesteps
from ..stable_diffusion.base import StableDiffusionBase
from ..stable_diffusion.pipeline_output import StableDiffusionPipelineOutput
from ..stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from .base import AdapterPipeline, one_adapter

if TYPE_CHECKING:
    from transformers import CLIPImageProcessor, CLIPTokenizer


@dataclass
class StableDiffusionAdapterPipelineOutput(StableDiffusionPipelineOutput):
    """The fields are `StableDiffusionPipelineOutput`'s."""


class StableDiffusionAdapterPipeline(AdapterPipeline, StableDiffusionBase):
    """Draws images of prompts that keep to control images, whose features the UNet adds to its own.

    Args:
        adapter: makes the features: a `T2IAdapter`, or a `MultiAdapter` or a list of several.

    The other components are `StableDiffusionBase`'s.
    """

    model_cpu_offload_seq = "text_encoder->adapter->unet->vae"
    _optional_components = ["safety_checker", "feature_extractor"]
    _output_class = StableDiffusionAdapterPipelineOutput

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: "CLIPTokenizer",
        unet: UNet2DConditionModel,
        adapter: T2IAdapter | MultiAdapter | list[T2IAdapter],
        scheduler: KarrasDiffusionSchedulers,
        safety_checker: StableDiffusionSafetyChecker,
        feature_extractor: "CLIPImageProcessor",
        requires_safety_checker: bool = True,
    ):
        self._set_up(
            requires_safety_checker, vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, adapter=one_adapter(adapter),
            scheduler=scheduler, safety_checker=safety_checker, feature_extractor=feature_extractor,
        )  # fmt: skip

    def __call__(
        self,
        prompt: str | list[str] | None = None,
        image: PipelineImageInput | list[PipelineImageInput] | None = None,
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
        output_type: str | None = "pil",
        return_dict: bool = True,
        callback: Callable[[int, float, Tensor], None] | None = None,
        callback_steps: int = 1,
        cross_attention_kwargs: dict[str, Any] | None = None,
        adapter_conditioning_scale: float | list[float] = 1.0,
        clip_skip: int | None = None,
    ) -> StableDiffusionAdapterPipelineOutput | tuple:
        """Draw images; arguments that are not named here are `StableDiffusionPipeline`'s.

        Args:
            image: control images, Pillow images of any size or tensors in [0, 1] of the picture's: one, or as many as divide the images
                drawn. For a `MultiAdapter` a list of these, one for each adapter.
            height: in pixels, a multiple of 8. By default the control image's, cut to a multiple of the adapter's `downscale_factor`.
            width: likewise.
            output_type: of "pt", which gives arrays in PyTorch diffusers here, the images are tensors as in other pipelines.
            callback: called as `callback(step, timestep, latents)` when the progress bar goes on.
            callback_steps: at every how many steps.
            adapter_conditioning_scale: factor on the features; for a `MultiAdapter` a list, or a number for all (where PyTorch diffusers
                takes a list only).

        Raises:
            ConfigError: arguments that do not fit together; see `check_inputs`.
        """
        height, width = self._default_height_width(height, width, image)
        self._begin(guidance_scale, clip_skip, cross_attention_kwargs, None, [])
        self.check_inputs(prompt, height, width, callback_steps, image, negative_prompt, prompt_embeds, negative_prompt_embeds)
        check_output_type(output_type)

        tensors, images = self._embed(prompt, negative_prompt, num_images_per_prompt, prompt_embeds, negative_prompt_embeds)
        features = self._features(image, height, width, adapter_conditioning_scale, images)
        timesteps, num_inference_steps = retrieve_timesteps(self.scheduler, num_inference_steps, None, timesteps, sigmas)
        dtype = tensors["prompt_embeds"].dtype
        tensors["latents"] = self.prepare_latents(
            images, self.unet.config.in_channels, height, width, dtype, self.device, generator, latents
        )
        predict = self._predictor(control=self._adapted(features, len(timesteps)))
        latents = denoise(
            self, timesteps, num_inference_steps, tensors, predict, self.prepare_extra_step_kwargs(generator, eta), callback=callback,
            callback_steps=callback_steps,
        )  # fmt: skip
        return self._finish(*self._decode(latents, output_type, dtype, None), return_dict)

    def check_inputs(
        self,
        prompt: Any,
        height: int,
        width: int,
        callback_steps: int,
        image: Any,
        negative_prompt: Any = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
    ) -> None:
        """Check the arguments of `__call__`.

        Raises:
            ConfigError: the cases of `StableDiffusionPipeline.check_inputs`.
            ValueError: not one image for each adapter of a `MultiAdapter`.
        """
        check_size(height, width)
        check_callback_steps(callback_steps)
        self._check_prompts(prompt, None, negative_prompt, prompt_embeds, negative_prompt_embeds, None, None, None)
        if isinstance(self.adapter, MultiAdapter):
            self.adapter._check_lists(image=image)
