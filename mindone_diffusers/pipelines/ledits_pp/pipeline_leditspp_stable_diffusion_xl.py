"""Editing images with words with Stable Diffusion XL, LEdits++ (arXiv:2311.16711)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from mindspore import Tensor

from ...callbacks import MultiPipelineCallbacks, PipelineCallback
from ...core.errors import ConfigError
from ...image_processor import PipelineImageInput, check_output_type
from ...models.autoencoders.autoencoder_kl import AutoencoderKL
from ...models.unets.unet_2d_condition import UNet2DConditionModel
from ...nn import functional as F
from ...schedulers.scheduling_ddim import DDIMScheduler
from ...schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from ...text_encoders.clip import CLIPTextModel, CLIPTextModelWithProjection, CLIPVisionModelWithProjection
from ..clip_prompts import check_pooled, embed_prompts_twice, negative_prompts
from ..guidance import rescale_noise_cfg  # noqa: F401  (where PyTorch diffusers has it)
from ..guided import check_ip_adapter, check_lora_scale
from ..schedule import end_early
from ..stable_diffusion_xl.base import StableDiffusionXLBase
from .attention import LeditsAttentionStore, LEDITSCrossAttnProcessor, LeditsGaussianSmoothing  # noqa: F401  (likewise)
from .base import LEditsPPBase, edit_tokens, supported_scheduler
from .pipeline_output import LEditsPPDiffusionPipelineOutput, LEditsPPInversionPipelineOutput

if TYPE_CHECKING:
    from transformers import CLIPImageProcessor, CLIPTokenizer


class LEditsPPPipelineStableDiffusionXL(LEditsPPBase, StableDiffusionXLBase):
    """Edits images: `invert` one, then call as often as you like. The scheduler and attributes are described at `LEditsPPBase`, the other
    components and arguments at `StableDiffusionXLBase`. Several images at once work here; in PyTorch diffusers they are not edited.

    Attributes:
        size: width and height of the images inverted, which the UNet is told as height and width as in PyTorch diffusers.
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_2->unet->vae"
    _callback_tensor_inputs = [
        "latents", "prompt_embeds", "negative_prompt_embeds", "add_text_embeds", "add_time_ids", "negative_pooled_prompt_embeds",
    ]  # fmt: skip

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        text_encoder_2: CLIPTextModelWithProjection,
        tokenizer: "CLIPTokenizer",
        tokenizer_2: "CLIPTokenizer",
        unet: UNet2DConditionModel,
        scheduler: DPMSolverMultistepScheduler | DDIMScheduler,
        image_encoder: CLIPVisionModelWithProjection | None = None,
        feature_extractor: "CLIPImageProcessor | None" = None,
        force_zeros_for_empty_prompt: bool = True,
        add_watermarker: bool | None = None,
    ):
        self._set_up(
            force_zeros_for_empty_prompt, add_watermarker, vae=vae, text_encoder=text_encoder, text_encoder_2=text_encoder_2,
            tokenizer=tokenizer, tokenizer_2=tokenizer_2, unet=unet, scheduler=supported_scheduler(scheduler),
            image_encoder=image_encoder, feature_extractor=feature_extractor,
        )  # fmt: skip

    def invert(
        self,
        image: PipelineImageInput,
        source_prompt: str = "",
        source_guidance_scale: float = 3.5,
        negative_prompt: str | None = None,
        negative_prompt_2: str | None = None,
        num_inversion_steps: int = 50,
        skip: float = 0.15,
        generator: Any = None,
        crops_coords_top_left: tuple[int, int] = (0, 0),
        num_zero_noise_steps: int = 3,
        cross_attention_kwargs: dict[str, Any] | None = None,
        height: int | None = None,
        width: int | None = None,
        resize_mode: str | None = "default",
        crops_coords: tuple[int, int, int, int] | None = None,
    ) -> LEditsPPInversionPipelineOutput:
        """Find the noise that leads to images; arguments that are not named here are `LEditsPPPipelineStableDiffusion.invert`'s.

        Args:
            source_prompt: what the images show, one text for all or a list. Guidance is towards it.
            source_guidance_scale: how far; there is guidance above 1 and with a text.
            negative_prompt: what they do not show: one text for all, or a list. Without it, see `force_zeros_for_empty_prompt`.
            negative_prompt_2: likewise for the second text encoder; the same by default.
            crops_coords_top_left: rows and columns that the images are to look like were cut off.
            num_zero_noise_steps: the last steps, in which no noise is added: with `DPMSolverMultistepScheduler` it would stay.

        Raises:
            ConfigError: a height or width that is not a multiple of 32, or as many negative prompts as images were not given.
            UnsupportedError: a scheduler without an inversion.
        """
        self._begin(1.0, None, cross_attention_kwargs, None, [])
        latents, shown = self._start_inversion(
            image, num_inversion_steps, skip, self.text_encoder_2.dtype, height, width, resize_mode, crops_coords
        )
        self.size = latents.shape[3] * self.vae_scale_factor, latents.shape[2] * self.vae_scale_factor
        self.enabled_editing_prompts = int(source_guidance_scale > 1.0 and source_prompt != "")
        tensors, _ = self._embed_concepts(
            [source_prompt] * self.batch_size if isinstance(source_prompt, str) else source_prompt, negative_prompt, negative_prompt_2,
            crops_coords_top_left,
        )  # fmt: skip
        return self._invert(latents, shown, tensors, source_guidance_scale, generator, num_zero_noise_steps)

    def __call__(
        self,
        denoising_end: float | None = None,
        negative_prompt: str | list[str] | None = None,
        negative_prompt_2: str | list[str] | None = None,
        negative_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        ip_adapter_image: PipelineImageInput | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: dict[str, Any] | None = None,
        guidance_rescale: float = 0.0,
        crops_coords_top_left: tuple[int, int] = (0, 0),
        target_size: tuple[int, int] | None = None,
        editing_prompt: str | list[str] | None = None,
        editing_prompt_embeddings: Tensor | None = None,
        editing_pooled_prompt_embeds: Tensor | None = None,
        reverse_editing_direction: bool | list[bool] | None = False,
        edit_guidance_scale: float | list[float] | None = 5,
        edit_warmup_steps: int | list[int] | None = 0,
        edit_cooldown_steps: int | list[int] | None = None,
        edit_threshold: float | list[float] | None = 0.9,
        sem_guidance: list[Tensor] | None = None,
        use_cross_attn_mask: bool = False,
        use_intersect_mask: bool = False,
        user_mask: Tensor | None = None,
        attn_store_steps: list[int] | None = [],  # noqa: B006  (upstream's default; never changed)
        store_averaged_over_steps: bool = True,
        clip_skip: int | None = None,
        callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006  (likewise)
    ) -> LEditsPPDiffusionPipelineOutput | tuple:
        """Edit the images that were inverted last; arguments that are not named here are `LEditsPPPipelineStableDiffusion`'s, and
        `StableDiffusionXLPipeline`'s.

        Args:
            negative_prompt: what the prediction without a concept is made with: one text for all images, or one for each. Without it, see
                `force_zeros_for_empty_prompt`.
            negative_pooled_prompt_embeds: needed with `negative_prompt_embeds`.
            target_size: not used, as in PyTorch diffusers: it is the size of the images inverted.
            editing_prompt_embeddings: embeddings instead of texts, (concepts, tokens, sizes). (PyTorch diffusers fails with them.)
            editing_pooled_prompt_embeds: needed with those, (concepts, size).
            use_intersect_mask: change only where both masks are, in all steps.
            clip_skip: how many of the text encoders' layers to leave out beside their last for the concepts.

        Raises:
            ConfigError: no image was inverted, arguments that do not fit together (see `check_inputs`, which PyTorch diffusers has and does
                not call), or masks of cross-attention for embeddings without texts.
            UnsupportedError: masks of cross-attention in MindSpore's global graph mode, or IP-Adapter arguments.
        """
        callback_on_step_end_tensor_inputs = self._begin(
            1.0, clip_skip, cross_attention_kwargs, callback_on_step_end, callback_on_step_end_tensor_inputs, guidance_rescale
        )
        self._denoising_end = denoising_end
        prompts = self._count_concepts(editing_prompt, editing_prompt_embeddings)
        check_ip_adapter(ip_adapter_image)
        self._check_callback_inputs(callback_on_step_end_tensor_inputs)
        self.check_inputs(negative_prompt, negative_prompt_2, negative_prompt_embeds, negative_pooled_prompt_embeds)
        check_output_type(output_type)

        tensors, tokens = self._embed_concepts(
            prompts, negative_prompt, negative_prompt_2, crops_coords_top_left, negative_prompt_embeds, negative_pooled_prompt_embeds,
            editing_prompt_embeddings, editing_pooled_prompt_embeds,
        )  # fmt: skip
        tensors["latents"] = self.init_latents
        timesteps, self._num_timesteps = end_early(self.scheduler, self.inversion_steps, len(self.inversion_steps), denoising_end)
        latents = self._edit(
            timesteps, tensors, prompts, tokens, use_cross_attn_mask, use_intersect_mask, attn_store_steps, store_averaged_over_steps,
            callback_on_step_end, callback_on_step_end_tensor_inputs, edit_threshold=edit_threshold, sem_guidance=sem_guidance,
            reverse_editing_direction=reverse_editing_direction, edit_guidance_scale=edit_guidance_scale, user_mask=user_mask,
            edit_warmup_steps=edit_warmup_steps, edit_cooldown_steps=edit_cooldown_steps, guidance_rescale=guidance_rescale,
        )  # fmt: skip
        image = self._decode(latents, output_type)
        self.maybe_free_model_hooks()
        return LEditsPPDiffusionPipelineOutput(image, None) if return_dict else (image,)

    def check_inputs(
        self,
        negative_prompt: Any = None,
        negative_prompt_2: Any = None,
        negative_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
    ) -> None:
        """Check the arguments of `__call__`.

        Raises:
            ConfigError: both a negative prompt and its embeddings, or embeddings without pooled ones.
        """
        for name, text in (("negative_prompt", negative_prompt), ("negative_prompt_2", negative_prompt_2)):
            if text is not None and negative_prompt_embeds is not None:
                raise ConfigError(f"`{name}` and `negative_prompt_embeds` are both given: pass one of them")
        check_pooled("negative_", negative_prompt_embeds, negative_pooled_prompt_embeds)

    def _embed_concepts(
        self, prompts: list[str] | None, negative_prompt: Any, negative_prompt_2: Any, crops_coords_top_left: tuple[int, int],
        negative_prompt_embeds: Tensor | None = None, negative_pooled_prompt_embeds: Tensor | None = None,
        editing_prompt_embeds: Tensor | None = None, editing_pooled_prompt_embeds: Tensor | None = None,
    ) -> tuple[dict[str, Tensor | None], np.ndarray | None]:  # fmt: skip
        """What the UNet takes beside latents and callbacks are given, and how many tokens each concept has, if it has a text."""
        negative, concepts, negative_pooled, pooled, tokens = self.encode_prompt(
            self.device, 1, negative_prompt, negative_prompt_2, negative_prompt_embeds, negative_pooled_prompt_embeds,
            (self.cross_attention_kwargs or {}).get("scale"), self.clip_skip, self.enabled_editing_prompts > 0, prompts,
            editing_prompt_embeds, editing_pooled_prompt_embeds,
        )  # fmt: skip
        tensors = {
            "prompt_embeds": self._with_concepts(negative, concepts),
            "negative_prompt_embeds": negative,
            "add_text_embeds": self._with_concepts(negative_pooled, pooled),
            "negative_pooled_prompt_embeds": negative_pooled,
            "w_embedding": None,
        }
        time_ids = self._time_ids((*self.size, *crops_coords_top_left, *self.size), tensors)
        tensors["add_time_ids"] = F.repeat_interleave(time_ids, (1 + self.enabled_editing_prompts) * self.batch_size, 0)
        return tensors, tokens

    def encode_prompt(
        self,
        device: Any = None,
        num_images_per_prompt: int = 1,
        negative_prompt: str | None = None,
        negative_prompt_2: str | None = None,
        negative_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        lora_scale: float | None = None,
        clip_skip: int | None = None,
        enable_edit_guidance: bool = True,
        editing_prompt: str | list[str] | None = None,
        editing_prompt_embeds: Tensor | None = None,
        editing_pooled_prompt_embeds: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None, np.ndarray | None]:
        """Embeddings of negative prompts and of concepts, for the images that were inverted last.

        Args:
            device: not used.
            num_images_per_prompt: how often to repeat each.
            negative_prompt: one text for all images, or one for each. Without it, see `force_zeros_for_empty_prompt`.
            negative_prompt_2: likewise for the second text encoder; the same by default.
            negative_prompt_embeds: embeddings instead of texts, (images, tokens, sizes).
            negative_pooled_prompt_embeds: the second encoder's projection of them, (images, size).
            lora_scale: not supported yet.
            clip_skip: how many of the text encoders' layers to leave out beside their last for the concepts.
            enable_edit_guidance: whether there are concepts.
            editing_prompt: the concepts.
            editing_prompt_embeds: embeddings instead of texts, (concepts, tokens, sizes).
            editing_pooled_prompt_embeds: the second encoder's projection of them, (concepts, size).

        Returns:
            Embeddings of negative prompts and concepts, then projections, and of texts how many tokens each has. Without concepts, None.

        Raises:
            ConfigError: as many negative prompts as images were not given, or embeddings come without projections.
            UnsupportedError: a `lora_scale`.
        """
        check_lora_scale(lora_scale)
        text_encoders, tokenizers = (self.text_encoder, self.text_encoder_2), (self.tokenizer, self.tokenizer_2)
        if self.text_encoder is None:
            text_encoders, tokenizers = text_encoders[1:], tokenizers[1:]
        dtype, tokens = self.text_encoder_2.dtype, None
        if negative_prompt_embeds is None:
            texts = [negative_prompts(None, text, self.batch_size) for text in (negative_prompt, negative_prompt_2 or negative_prompt)]
            negative_prompt_embeds, negative_pooled_prompt_embeds = embed_prompts_twice(text_encoders, tokenizers, texts)
            if negative_prompt is None and self.config.force_zeros_for_empty_prompt:
                negative_prompt_embeds = F.zeros(negative_prompt_embeds.shape, dtype)
                negative_pooled_prompt_embeds = F.zeros(negative_pooled_prompt_embeds.shape, dtype)
        check_pooled("negative_", negative_prompt_embeds, negative_pooled_prompt_embeds)
        negative = [
            F.repeat_interleave(embeds.astype(dtype), num_images_per_prompt, 0)
            for embeds in (negative_prompt_embeds, negative_pooled_prompt_embeds)
        ]
        if not enable_edit_guidance:
            return negative[0], None, negative[1], None, None

        if editing_prompt_embeds is None:
            texts, length = [editing_prompt] if isinstance(editing_prompt, str) else editing_prompt, negative_prompt_embeds.shape[1]
            tokens = edit_tokens(self.tokenizer_2, texts, length)
            editing_prompt_embeds, editing_pooled_prompt_embeds = embed_prompts_twice(
                text_encoders, tokenizers, (texts, texts), clip_skip, length
            )
        if editing_pooled_prompt_embeds is None:
            raise ConfigError("editing_prompt_embeddings come without editing_pooled_prompt_embeds: pass both, as encode_prompt gives them")
        concepts = [
            F.repeat_interleave(embeds.astype(dtype), num_images_per_prompt, 0)
            for embeds in (editing_prompt_embeds, editing_pooled_prompt_embeds)
        ]
        return negative[0], concepts[0], negative[1], concepts[1], tokens
