"""Editing an image as an instruction says with Stable Diffusion XL, InstructPix2Pix (arXiv:2211.09800, arXiv:2307.01952)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mindspore import Tensor

from ...core.errors import ConfigError
from ...image_processor import PipelineImageInput, check_output_type
from ...models.autoencoders.autoencoder_kl import AutoencoderKL
from ...models.unets.unet_2d_condition import UNet2DConditionModel
from ...nn import functional as F
from ...schedulers.scheduling_utils import KarrasDiffusionSchedulers
from ...text_encoders.clip import CLIPTextModel, CLIPTextModelWithProjection
from ..denoising import denoise
from ..editing import EditingPipeline, edited_image
from ..guidance import rescale_noise_cfg  # noqa: F401  (where PyTorch diffusers has it)
from ..images import retrieve_latents, upcast  # noqa: F401
from ..schedule import end_early, retrieve_timesteps
from .base import StableDiffusionXLBase
from .pipeline_output import StableDiffusionXLPipelineOutput

if TYPE_CHECKING:
    from transformers import CLIPTokenizer


class StableDiffusionXLInstructPix2PixPipeline(EditingPipeline, StableDiffusionXLBase):
    """Changes an image as an instruction says: the UNet, of 8 input channels, is shown the image beside the latents. Components and
    arguments are described at `StableDiffusionXLBase`.

    Args:
        is_cosxl_edit: the UNet takes the image's latents scaled, as CosXL Edit's does.
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_2->unet->vae"
    _optional_components = ["tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2"]

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        text_encoder_2: CLIPTextModelWithProjection,
        tokenizer: "CLIPTokenizer",
        tokenizer_2: "CLIPTokenizer",
        unet: UNet2DConditionModel,
        scheduler: KarrasDiffusionSchedulers,
        force_zeros_for_empty_prompt: bool = True,
        add_watermarker: bool | None = None,
        is_cosxl_edit: bool | None = False,
    ):
        self._set_up(
            force_zeros_for_empty_prompt, add_watermarker, vae=vae, text_encoder=text_encoder, text_encoder_2=text_encoder_2,
            tokenizer=tokenizer, tokenizer_2=tokenizer_2, unet=unet, scheduler=scheduler,
        )  # fmt: skip
        self.register_to_config(is_cosxl_edit=is_cosxl_edit)
        self.is_cosxl_edit = is_cosxl_edit

    def __call__(
        self,
        prompt: str | list[str] | None = None,
        prompt_2: str | list[str] | None = None,
        image: PipelineImageInput = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 100,
        denoising_end: float | None = None,
        guidance_scale: float = 5.0,
        image_guidance_scale: float = 1.5,
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
        output_type: str | None = "pil",
        return_dict: bool = True,
        callback: Callable[[int, float, Tensor], None] | None = None,
        callback_steps: int = 1,
        cross_attention_kwargs: dict[str, Any] | None = None,
        guidance_rescale: float = 0.0,
        original_size: tuple[int, int] | None = None,
        crops_coords_top_left: tuple[int, int] = (0, 0),
        target_size: tuple[int, int] | None = None,
    ) -> StableDiffusionXLPipelineOutput | tuple:
        """Draw images; arguments that are not named here are `StableDiffusionXLPipeline`'s.

        Args:
            prompt: the instruction: one text, or a list.
            image: what to change: images in any of `VaeImageProcessor.preprocess`'s formats, or latents (images, 4, h, w). The number
                of images drawn has to be a multiple of theirs.
            height: in pixels, which the image is scaled to. By default the UNet's `sample_size` times `vae_scale_factor`.
            width: likewise.
            guidance_scale: how strictly to follow the instruction.
            image_guidance_scale: how much to keep of the image. There is guidance where this is at least 1 and `guidance_scale` above 1.
            callback: called as `callback(step, timestep, latents)`.
            callback_steps: after every so many steps.

        Raises:
            ConfigError: arguments that do not fit together, no image, or a UNet of other channels than latents and image have.
        """
        self._begin(guidance_scale, None, cross_attention_kwargs, None, [], guidance_rescale)
        self._image_guidance_scale, self._denoising_end = image_guidance_scale, denoising_end
        default = self._default_size()
        height, width = height or default[0], width or default[1]
        self.check_inputs(prompt, callback_steps, negative_prompt, prompt_embeds, negative_prompt_embeds)
        check_output_type(output_type)
        if image is None:
            raise ConfigError("image is None: pass the image to change")

        guided = self.do_classifier_free_guidance
        prompt_embeds, negative_embeds, add_text_embeds, negative_pooled_embeds = self.encode_prompt(
            prompt, prompt_2, self.device, num_images_per_prompt, guided, negative_prompt, negative_prompt_2, prompt_embeds,
            negative_prompt_embeds, pooled_prompt_embeds, negative_pooled_prompt_embeds, (cross_attention_kwargs or {}).get("scale"),
        )  # fmt: skip
        images, dtype, channels = prompt_embeds.shape[0], prompt_embeds.dtype, self.vae.config.latent_channels
        image = self.image_processor.preprocess(image, height=height, width=width)
        tensors = {
            "prompt_embeds": self._guided_batch(prompt_embeds, negative_embeds),
            "add_text_embeds": self._guided_batch(add_text_embeds, negative_pooled_embeds),
            "image_latents": self.prepare_image_latents(image, images, 1, dtype, self.device, guided),
            "w_embedding": None,
        }
        self._check_shown(tensors["image_latents"], "InstructPix2Pix model")
        time_ids = self._time_ids((*(original_size or (height, width)), *crops_coords_top_left, *(target_size or (height, width))), tensors)
        tensors["add_time_ids"] = F.cat((time_ids,) * tensors["prompt_embeds"].shape[0], 0)

        timesteps, num_inference_steps = retrieve_timesteps(self.scheduler, num_inference_steps)
        warmup = len(timesteps) - num_inference_steps * self.scheduler.order
        timesteps, num_inference_steps = end_early(self.scheduler, timesteps, num_inference_steps, denoising_end)
        self._num_timesteps = len(timesteps)
        tensors["latents"] = self.prepare_latents(images, channels, height, width, dtype, self.device, generator, latents)

        def call_back(pipeline: Any, i: int, t: float, tensors: dict[str, Any]) -> dict[str, Any]:
            order = self.scheduler.order
            if (i == len(timesteps) - 1 or (i + 1 > warmup and (i + 1) % order == 0)) and i % callback_steps == 0:
                callback(i // order, t, tensors["latents"])
            return {}

        latents = denoise(
            self, timesteps, num_inference_steps, tensors, self._predictor(edited_image), self.prepare_extra_step_kwargs(generator, eta),
            None if callback is None else call_back,
        )  # fmt: skip
        return self._finish(self._decode(latents, output_type), return_dict)

    def check_inputs(
        self,
        prompt: Any,
        callback_steps: int | None,
        negative_prompt: Any = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> None:
        """Check the arguments of `__call__`; raises as `StableDiffusionXLPipeline.check_inputs`, but does not look at sizes and texts for
        the second encoder."""
        self._check_prompts(
            prompt, callback_steps, negative_prompt, prompt_embeds, negative_prompt_embeds, None, None, callback_on_step_end_tensor_inputs
        )

    def _latents_shown(self, image: Tensor) -> Tensor:
        with upcast(self.vae):
            latents = super()._latents_shown(image)
        return latents * self.vae.config.scaling_factor if self.is_cosxl_edit else latents
