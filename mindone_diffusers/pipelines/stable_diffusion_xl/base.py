"""What the Stable Diffusion XL pipelines share (arXiv:2307.01952): their parts, two-encoder prompts, micro-conditioning and output."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import mindspore as ms
import numpy as np
from mindspore import Tensor

from ...core.errors import ConfigError
from ...models.autoencoders.autoencoder_kl import AutoencoderKL
from ...models.unets.unet_2d_condition import UNet2DConditionModel
from ...nn import functional as F
from ...schedulers.scheduling_utils import KarrasDiffusionSchedulers
from ...text_encoders.clip import CLIPTextModel, CLIPTextModelWithProjection, CLIPVisionModelWithProjection
from ..clip_prompts import check_pooled, encode_prompt_twice
from ..guided import GuidedPipeline, check_lora_scale, check_size
from ..images import encode_image, unscale_latents, upcast
from ..schedule import fraction, get_timesteps
from .pipeline_output import StableDiffusionXLPipelineOutput
from .watermark import StableDiffusionXLWatermarker, is_invisible_watermark_available

if TYPE_CHECKING:
    from transformers import CLIPImageProcessor, CLIPTokenizer


class StableDiffusionXLBase(GuidedPipeline):
    """Base of the pipelines with two CLIP text encoders.

    Components:
        vae: encodes images and decodes latents; `AutoencoderKL` or `AutoencoderTiny`. Of float16, it is float32 while it runs if its
            config has `force_upcast`.
        text_encoder: the first to embed the prompt; None in the refiner.
        text_encoder_2: the second, whose projection the UNet takes too.
        tokenizer: transformers' tokenizer for the first.
        tokenizer_2: for the second.
        unet: predicts the noise in latents.
        scheduler: any of `KarrasDiffusionSchedulers`.
        image_encoder: for IP-Adapters; may be None.
        feature_extractor: prepares images for it.

    Args:
        force_zeros_for_empty_prompt: without a negative prompt, its embeddings are zeros instead of an empty text's.
        add_watermarker: write an invisible watermark into images of at least 256 pixels. By default, as in PyTorch diffusers, if
            invisible-watermark is installed; but it is not used.

    Attributes:
        watermark: what writes it, or None.
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_2->image_encoder->unet->vae"
    _optional_components = ["tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2", "image_encoder", "feature_extractor"]
    _callback_tensor_inputs = ["latents", "prompt_embeds", "add_text_embeds", "add_time_ids"]

    def _set_up(self, force_zeros_for_empty_prompt: bool, add_watermarker: bool | None, **components: Any) -> None:
        self.register_modules(**components)
        self.register_to_config(force_zeros_for_empty_prompt=force_zeros_for_empty_prompt)
        wanted = is_invisible_watermark_available() if add_watermarker is None else add_watermarker
        self.watermark = StableDiffusionXLWatermarker() if wanted else None

    def _embed(
        self,
        prompt: Any,
        prompt_2: Any,
        negative_prompt: Any,
        negative_prompt_2: Any,
        num_images_per_prompt: int,
        prompt_embeds: Tensor | None,
        negative_prompt_embeds: Tensor | None,
        pooled_prompt_embeds: Tensor | None,
        negative_pooled_prompt_embeds: Tensor | None,
    ) -> tuple[dict[str, Tensor | None], int]:
        """The embeddings that the UNet takes and callbacks are given, and how many images they draw. With guidance the UNet's hold the
        negative prompts' first."""
        prompt_embeds, negative_prompt_embeds, add_text_embeds, negative_pooled_prompt_embeds = self.encode_prompt(
            prompt, prompt_2, self.device, num_images_per_prompt, self.do_classifier_free_guidance, negative_prompt, negative_prompt_2,
            prompt_embeds, negative_prompt_embeds, pooled_prompt_embeds, negative_pooled_prompt_embeds,
            (self.cross_attention_kwargs or {}).get("scale"), self.clip_skip,
        )  # fmt: skip
        images = prompt_embeds.shape[0]
        return {
            "prompt_embeds": self._guided_batch(prompt_embeds, negative_prompt_embeds),
            "negative_prompt_embeds": negative_prompt_embeds,
            "add_text_embeds": self._guided_batch(add_text_embeds, negative_pooled_prompt_embeds),
            "negative_pooled_prompt_embeds": negative_pooled_prompt_embeds,
            "w_embedding": self._scale_embedding(images, prompt_embeds.dtype),
        }, images

    def _conditions(self, tensors: dict[str, Any]) -> dict[str, Tensor]:
        return {"text_embeds": tensors["add_text_embeds"], "time_ids": tensors["add_time_ids"]}

    def _encode(self, image: Tensor, generator: Any, sample_mode: str = "sample") -> Tensor:
        with upcast(self.vae):
            return encode_image(self.vae, image, generator, sample_mode)

    def _time_ids(self, numbers: Sequence[float], tensors: dict[str, Any]) -> Tensor:
        """Sizes and places as the UNet takes them, (1, numbers), in the dtype of the embeddings in `tensors`.

        Raises:
            ConfigError: it takes more or less of them.
        """
        each, pooled = self.unet.config.addition_time_embed_dim, tensors["add_text_embeds"].shape[-1]
        expected, given = self.unet.add_embedding.linear_1.in_features, each * len(numbers) + pooled
        if given != expected:
            hint = "check addition_time_embed_dim in the UNet's config, and projection_dim in text_encoder_2's"
            scored = self.config.get("requires_aesthetics_score")
            if scored is not None and given - expected == (-each if scored else each):
                hint = f"it is made for pipe.register_to_config(requires_aesthetics_score={not scored})"
            raise ConfigError(
                f"{len(numbers)} sizes and places of {each} numbers and a pooled embedding of {pooled} make {given}; the UNet's "
                f"add_embedding takes {expected}: {hint}"
            )
        return Tensor([list(numbers)], ms.float32).astype(tensors["prompt_embeds"].dtype)

    def _decode(self, latents: Tensor, output_type: str) -> Any:
        """The images, as `output_type` says."""
        image = latents
        if output_type != "latent":
            image = self._decode_latents(latents)
            if self.watermark is not None:
                image = self.watermark.apply_watermark(image)
        return self.image_processor.postprocess(image, output_type)

    def _decode_latents(self, latents: Tensor, **conditions: Any) -> Tensor:
        with upcast(self.vae):
            return self.vae.decode(unscale_latents(self.vae, latents.astype(self.vae.dtype)), return_dict=False, **conditions)[0]

    def _finish(self, image: Any, return_dict: bool) -> StableDiffusionXLPipelineOutput | tuple:
        self.maybe_free_model_hooks()
        return StableDiffusionXLPipelineOutput(image) if return_dict else (image,)

    def _check_both_prompts(
        self,
        prompt: Any,
        prompt_2: Any,
        callback_steps: int | None,
        negative_prompt: Any,
        negative_prompt_2: Any,
        prompt_embeds: Tensor | None,
        negative_prompt_embeds: Tensor | None,
        ip_adapter_image: Any,
        ip_adapter_image_embeds: Any,
        callback_on_step_end_tensor_inputs: list[str] | None,
    ) -> None:
        """The part of `check_inputs` that all pipelines have.

        Raises:
            ConfigError: the cases of `GuidedPipeline._check_prompts`, and the same of the prompts for the second encoder.
            UnsupportedError: IP-Adapter arguments.
        """
        self._check_prompts(
            prompt, callback_steps, negative_prompt, prompt_embeds, negative_prompt_embeds, ip_adapter_image, ip_adapter_image_embeds,
            callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        if prompt_2 is not None and prompt_embeds is not None:
            raise ConfigError("`prompt_2` and `prompt_embeds` are both given: pass one of them")
        if prompt_2 is not None and not isinstance(prompt_2, (str, list)):
            raise ConfigError(f"prompt_2 is a {type(prompt_2).__name__}; expected a string or a list of strings")
        if negative_prompt_2 is not None and negative_prompt_embeds is not None:
            raise ConfigError("`negative_prompt_2` and `negative_prompt_embeds` are both given: pass one of them")

    @property
    def default_sample_size(self) -> int:
        """Side of the UNet's latents."""
        return self.unet.config.sample_size

    @property
    def denoising_end(self) -> float | None:
        return self._denoising_end

    def upcast_vae(self) -> None:
        """The VAE in float32 from now on."""
        self.vae.to(ms.float32)

    def encode_prompt(
        self,
        prompt: str | list[str] | None,
        prompt_2: str | list[str] | None = None,
        device: Any = None,
        num_images_per_prompt: int = 1,
        do_classifier_free_guidance: bool = True,
        negative_prompt: str | list[str] | None = None,
        negative_prompt_2: str | list[str] | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        lora_scale: float | None = None,
        clip_skip: int | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        """Embeddings of the prompts and negative prompts, then pooled ones; see `clip_prompts.encode_prompt_twice`. `device` is not used.

        Raises:
            UnsupportedError: a `lora_scale`.
        """
        check_lora_scale(lora_scale)
        return encode_prompt_twice(
            (self.text_encoder, self.text_encoder_2), (self.tokenizer, self.tokenizer_2), prompt, prompt_2, negative_prompt,
            negative_prompt_2, prompt_embeds=prompt_embeds, negative_prompt_embeds=negative_prompt_embeds,
            pooled_prompt_embeds=pooled_prompt_embeds, negative_pooled_prompt_embeds=negative_pooled_prompt_embeds,
            num_images_per_prompt=num_images_per_prompt, do_classifier_free_guidance=do_classifier_free_guidance, clip_skip=clip_skip,
            zeros_without_negative_prompt=self.config.force_zeros_for_empty_prompt, dtype=self.unet.dtype,
        )  # fmt: skip


class StableDiffusionXLTextBase(StableDiffusionXLBase):
    """Base of the pipelines that start from noise."""

    def _sizes(
        self,
        tensors: dict[str, Any],
        images: int,
        original_size: Sequence[int],
        crops_coords_top_left: Sequence[int],
        target_size: Sequence[int],
        negative_original_size: Sequence[int] | None,
        negative_crops_coords_top_left: Sequence[int],
        negative_target_size: Sequence[int] | None,
    ) -> Tensor:
        """What the UNet is told of the sizes and places of images drawn from noise, a row for each, with guidance also for the negative
        prompts. Without both of theirs those are the same; with them, the rows alternate as in PyTorch diffusers."""
        time_ids = negative_ids = self._time_ids((*original_size, *crops_coords_top_left, *target_size), tensors)
        if negative_original_size is not None and negative_target_size is not None:
            negative_ids = self._time_ids((*negative_original_size, *negative_crops_coords_top_left, *negative_target_size), tensors)
        tensors["negative_add_time_ids"] = negative_ids  # for callbacks; it has no effect
        return F.cat((self._guided_batch(time_ids, negative_ids),) * images, 0)

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


class StableDiffusionXLImageBase(StableDiffusionXLBase):
    """Base of the pipelines that start from an image, with the base model or with the refiner.

    Args:
        requires_aesthetics_score: the UNet takes an aesthetic score instead of a target size, as the refiner's does.
    """

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
        requires_aesthetics_score: bool = False,
        force_zeros_for_empty_prompt: bool = True,
        add_watermarker: bool | None = None,
    ):
        self._set_up(
            force_zeros_for_empty_prompt, add_watermarker, vae=vae, text_encoder=text_encoder, text_encoder_2=text_encoder_2,
            tokenizer=tokenizer, tokenizer_2=tokenizer_2, unet=unet, scheduler=scheduler, image_encoder=image_encoder,
            feature_extractor=feature_extractor,
        )  # fmt: skip
        self.register_to_config(requires_aesthetics_score=requires_aesthetics_score)

    def _set_range(self, denoising_start: float | None, denoising_end: float | None) -> None:
        """Raises ConfigError where the one is not below the other."""
        if None not in (fraction(denoising_start), fraction(denoising_end)) and denoising_start >= denoising_end:
            raise ConfigError(f"denoising_start is {denoising_start} and denoising_end {denoising_end}: pass a larger end")
        self._denoising_start, self._denoising_end = denoising_start, denoising_end

    def _micro_conditions(
        self,
        tensors: dict[str, Any],
        images: int,
        original_size: Sequence[int] | None,
        crops_coords_top_left: Sequence[int],
        target_size: Sequence[int] | None,
        negative_original_size: Sequence[int] | None,
        negative_crops_coords_top_left: Sequence[int],
        negative_target_size: Sequence[int] | None,
        aesthetic_score: float,
        negative_aesthetic_score: float,
    ) -> Tensor:
        """What the UNet is told of the images' sizes, places and scores, a row for each, with guidance the negative prompts' first; those
        are also `tensors`' "add_neg_time_ids". Sizes are the latents' in pixels by default."""
        size = tuple(side * self.vae_scale_factor for side in tensors["latents"].shape[2:])
        original_size, target_size = original_size or size, target_size or size
        negative_original_size = negative_original_size or original_size
        if self.config.requires_aesthetics_score:
            numbers = (*original_size, *crops_coords_top_left, aesthetic_score)
            negative = (*negative_original_size, *negative_crops_coords_top_left, negative_aesthetic_score)
        else:
            numbers = (*original_size, *crops_coords_top_left, *target_size)
            # The positive place, as in PyTorch diffusers.
            negative = (*negative_original_size, *crops_coords_top_left, *(negative_target_size or target_size))
        positive, negative = (F.repeat_interleave(self._time_ids(row, tensors), images, 0) for row in (numbers, negative))
        tensors["add_neg_time_ids"] = negative
        return self._guided_batch(positive, negative)

    def get_timesteps(
        self, num_inference_steps: int, strength: float, device: Any, denoising_start: float | None = None
    ) -> tuple[np.ndarray, int]:
        """See `schedule.get_timesteps`. `device` is not used."""
        return get_timesteps(self.scheduler, num_inference_steps, strength, denoising_start)

    @property
    def denoising_start(self) -> float | None:
        return self._denoising_start
