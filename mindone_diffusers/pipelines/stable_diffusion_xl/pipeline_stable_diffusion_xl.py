"""Text to image with Stable Diffusion XL (arXiv:2307.01952)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mindspore import Tensor

from ...callbacks import MultiPipelineCallbacks, PipelineCallback
from ...image_processor import PipelineImageInput, check_output_type
from ...models.autoencoders.autoencoder_kl import AutoencoderKL
from ...models.unets.unet_2d_condition import UNet2DConditionModel
from ...nn import functional as F
from ...schedulers.scheduling_utils import KarrasDiffusionSchedulers
from ...text_encoders.clip import CLIPTextModel, CLIPTextModelWithProjection, CLIPVisionModelWithProjection
from ..clip_prompts import check_pooled
from ..denoising import denoise
from ..guidance import rescale_noise_cfg  # noqa: F401  (where PyTorch diffusers has it)
from ..guided import check_size
from ..schedule import end_early, retrieve_timesteps
from .base import StableDiffusionXLBase
from .pipeline_output import StableDiffusionXLPipelineOutput

if TYPE_CHECKING:
    from transformers import CLIPImageProcessor, CLIPTokenizer


class StableDiffusionXLPipeline(StableDiffusionXLBase):
    """Draws images of prompts. Components and arguments are described at `StableDiffusionXLBase`."""

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        text_encoder_2: CLIPTextModelWithProjection,
        tokenizer: "CLIPTokenizer",
        tokenizer_2: "CLIPTokenizer",
        unet: UNet2DConditionModel,
        scheduler: KarrasDiffusionSchedulers,
        image_encoder: CLIPVisionModelWithProjection | None = None,
        feature_extractor: "CLIPImageProcessor | None" = None,
        force_zeros_for_empty_prompt: bool = True,
        add_watermarker: bool | None = None,
    ):
        self._set_up(
            force_zeros_for_empty_prompt, add_watermarker, vae=vae, text_encoder=text_encoder, text_encoder_2=text_encoder_2,
            tokenizer=tokenizer, tokenizer_2=tokenizer_2, unet=unet, scheduler=scheduler, image_encoder=image_encoder,
            feature_extractor=feature_extractor,
        )  # fmt: skip

    def __call__(
        self,
        prompt: str | list[str] | None = None,
        prompt_2: str | list[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        timesteps: list[int] | None = None,
        sigmas: list[float] | None = None,
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
        clip_skip: int | None = None,
        callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006  (upstream's default; never changed)
    ) -> StableDiffusionXLPipelineOutput | tuple:
        """Draw images; arguments that are not named here are `StableDiffusionPipeline`'s.

        Args:
            prompt: what to draw: one text, or a list.
            prompt_2: as many texts for the second text encoder; the same by default.
            height: in pixels, a multiple of 8. By default the UNet's `sample_size` times `vae_scale_factor`.
            width: likewise.
            denoising_end: the part of the noise levels, between 0.0 and 1.0, after which to stop and leave the rest to a refiner: pass
                `output_type="latent"`, and the refiner `denoising_start`.
            negative_prompt: what not to draw: one text for all, or a list. Without it, see `force_zeros_for_empty_prompt`; then
                `negative_prompt_2` has no effect either.
            negative_prompt_2: likewise for the second text encoder; the same by default.
            prompt_embeds: embeddings instead of prompts, (prompts, tokens, sizes of both encoders).
            negative_prompt_embeds: embeddings instead of negative prompts.
            pooled_prompt_embeds: the second encoder's projection, (prompts, size); needed with `prompt_embeds`.
            negative_pooled_prompt_embeds: needed with `negative_prompt_embeds`.
            original_size: height and width that the picture is to look like it was scaled from; by default its own.
            crops_coords_top_left: rows and columns that it is to look like were cut off.
            target_size: height and width that it is to be composed for; by default its own.
            negative_original_size: the same for the negative prompt, where it has an effect only together with `negative_target_size`. With
                both and several images, the positive and negative sizes alternate over the rows of the batch as in PyTorch diffusers.
            negative_crops_coords_top_left: likewise.
            negative_target_size: likewise.
            clip_skip: how many of the text encoders' layers to leave out beside their last.

        Raises:
            ConfigError: arguments that do not fit together; see `check_inputs`.
            UnsupportedError: IP-Adapter arguments.
        """
        callback_on_step_end_tensor_inputs = self._begin(
            guidance_scale, clip_skip, cross_attention_kwargs, callback_on_step_end, callback_on_step_end_tensor_inputs, guidance_rescale
        )
        self._denoising_end = denoising_end
        default = self._default_size()
        height, width = height or default[0], width or default[1]
        self.check_inputs(
            prompt, prompt_2, height, width, None, negative_prompt, negative_prompt_2, prompt_embeds, negative_prompt_embeds,
            pooled_prompt_embeds, negative_pooled_prompt_embeds, ip_adapter_image, ip_adapter_image_embeds,
            callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        check_output_type(output_type)

        tensors, images = self._embed(
            prompt, prompt_2, negative_prompt, negative_prompt_2, num_images_per_prompt, prompt_embeds, negative_prompt_embeds,
            pooled_prompt_embeds, negative_pooled_prompt_embeds,
        )  # fmt: skip
        time_ids = self._time_ids((*(original_size or (height, width)), *crops_coords_top_left, *(target_size or (height, width))), tensors)
        negative_ids = time_ids
        if negative_original_size is not None and negative_target_size is not None:
            negative_ids = self._time_ids((*negative_original_size, *negative_crops_coords_top_left, *negative_target_size), tensors)
        tensors["negative_add_time_ids"] = negative_ids
        tensors["add_time_ids"] = F.cat((self._guided_batch(time_ids, negative_ids),) * images, 0)

        timesteps, num_inference_steps = retrieve_timesteps(self.scheduler, num_inference_steps, None, timesteps, sigmas)
        timesteps, num_inference_steps = end_early(self.scheduler, timesteps, num_inference_steps, denoising_end)
        self._num_timesteps = len(timesteps)
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(0)
        tensors["latents"] = self.prepare_latents(
            images, self.unet.config.in_channels, height, width, tensors["prompt_embeds"].dtype, self.device, generator, latents
        )
        latents = denoise(
            self, timesteps, num_inference_steps, tensors, self._predictor(), self.prepare_extra_step_kwargs(generator, eta),
            callback_on_step_end, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        return self._finish(self._decode(latents, output_type), return_dict)

    def check_inputs(
        self,
        prompt: Any,
        prompt_2: Any,
        height: int,
        width: int,
        callback_steps: int | None,
        negative_prompt: Any = None,
        negative_prompt_2: Any = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        ip_adapter_image: Any = None,
        ip_adapter_image_embeds: Any = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> None:
        """Check the arguments of `__call__`.

        Raises:
            ConfigError: a size that is not a multiple of 8, an unknown callback tensor, both or neither of a prompt and its embeddings,
                a prompt of another type, embeddings of different shapes or without pooled ones.
            UnsupportedError: IP-Adapter arguments.
        """
        check_size(height, width)
        self._check_both_prompts(
            prompt, prompt_2, callback_steps, negative_prompt, negative_prompt_2, prompt_embeds, negative_prompt_embeds, ip_adapter_image,
            ip_adapter_image_embeds, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        check_pooled("", prompt_embeds, pooled_prompt_embeds)
        check_pooled("negative_", negative_prompt_embeds, negative_pooled_prompt_embeds)
