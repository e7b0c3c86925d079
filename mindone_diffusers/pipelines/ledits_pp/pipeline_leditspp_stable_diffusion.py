"""Editing images with words with Stable Diffusion 1 and 2, LEdits++ (arXiv:2311.16711)."""

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
from ...text_encoders.clip import CLIPTextModel
from ..clip_prompts import embed_prompts, negative_prompts
from ..guidance import rescale_noise_cfg  # noqa: F401  (where PyTorch diffusers has it)
from ..guided import check_lora_scale
from ..stable_diffusion.base import StableDiffusionBase, correct_early_configs
from ..stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from .attention import LeditsAttentionStore, LEDITSCrossAttnProcessor, LeditsGaussianSmoothing  # noqa: F401  (likewise)
from .base import LEditsPPBase, edit_tokens, supported_scheduler
from .pipeline_output import LEditsPPDiffusionPipelineOutput, LEditsPPInversionPipelineOutput

if TYPE_CHECKING:
    from transformers import CLIPImageProcessor, CLIPTokenizer


class LEditsPPPipelineStableDiffusion(LEditsPPBase, StableDiffusionBase):
    """Edits images: `invert` one, then call as often as you like. The scheduler and attributes are described at `LEditsPPBase`, the other
    components at `StableDiffusionBase`."""

    model_cpu_offload_seq = "text_encoder->unet->vae"
    _optional_components = ["safety_checker", "feature_extractor"]
    _callback_tensor_inputs = ["latents", "negative_prompt_embeds"]
    _output_class = LEditsPPDiffusionPipelineOutput
    _noise_mask_from = 800

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: "CLIPTokenizer",
        unet: UNet2DConditionModel,
        scheduler: DDIMScheduler | DPMSolverMultistepScheduler,
        safety_checker: StableDiffusionSafetyChecker,
        feature_extractor: "CLIPImageProcessor",
        requires_safety_checker: bool = True,
    ):
        scheduler = supported_scheduler(scheduler)
        correct_early_configs(scheduler, unet, {"steps_offset": 1, "clip_sample": False})
        self._set_up(
            requires_safety_checker, vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler,
            safety_checker=safety_checker, feature_extractor=feature_extractor,
        )  # fmt: skip

    def invert(
        self,
        image: PipelineImageInput,
        source_prompt: str = "",
        source_guidance_scale: float = 3.5,
        num_inversion_steps: int = 30,
        skip: float = 0.15,
        generator: Any = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        clip_skip: int | None = None,
        height: int | None = None,
        width: int | None = None,
        resize_mode: str | None = "default",
        crops_coords: tuple[int, int, int, int] | None = None,
    ) -> LEditsPPInversionPipelineOutput:
        """Find the noise that leads to images, which the next calls edit.

        Args:
            image: the images, of one size, in any of `VaeImageProcessor.preprocess`'s formats. Several get each other's masks of
                cross-attention, as in PyTorch diffusers: invert them one by one, or edit with `use_intersect_mask=False`.
            source_prompt: what they show. As in PyTorch diffusers, guidance is then from this text towards the empty one.
            source_guidance_scale: how far; there is guidance above 1 and with a text. (PyTorch diffusers fails at 1 and below.)
            num_inversion_steps: steps, of those that are not skipped.
            skip: how many more steps there are, as a part of them, which are left out at the noisy end: the more, the less is changed.
            generator: `numpy.random.Generator`, this library's `Generator`, or a list of one for each image.
            cross_attention_kwargs: passed to the UNet's attention processors.
            clip_skip: how many of CLIP's last layers to leave out for the source prompt, also an empty one.
            height: in pixels, a multiple of 32; by default the image's.
            width: likewise.
            resize_mode: "default", "fill" or "crop", see `VaeImageProcessor.preprocess`.
            crops_coords: left, top, right and bottom of the part to use.

        Raises:
            ConfigError: a height or width that is not a multiple of 32.
            UnsupportedError: a scheduler without an inversion.
        """
        self._begin(1.0, clip_skip, cross_attention_kwargs, None, [])
        latents, shown = self._start_inversion(
            image, num_inversion_steps, skip, self.text_encoder.dtype, height, width, resize_mode, crops_coords
        )
        guided = source_guidance_scale > 1.0
        source, empty, _ = self.encode_prompt(
            self.device, 1, guided, None, source_prompt, lora_scale=(cross_attention_kwargs or {}).get("scale"), clip_skip=clip_skip
        )
        self.enabled_editing_prompts = int(guided and source_prompt != "")
        tensors = {"prompt_embeds": self._with_concepts(source, empty) if guided else empty, "w_embedding": None}
        return self._invert(latents, shown, tensors, source_guidance_scale, generator)

    def __call__(
        self,
        negative_prompt: str | list[str] | None = None,
        generator: Any = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        editing_prompt: str | list[str] | None = None,
        editing_prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        reverse_editing_direction: bool | list[bool] | None = False,
        edit_guidance_scale: float | list[float] | None = 5,
        edit_warmup_steps: int | list[int] | None = 0,
        edit_cooldown_steps: int | list[int] | None = None,
        edit_threshold: float | list[float] | None = 0.9,
        user_mask: Tensor | None = None,
        sem_guidance: list[Tensor] | None = None,
        use_cross_attn_mask: bool = False,
        use_intersect_mask: bool = True,
        attn_store_steps: list[int] | None = [],  # noqa: B006  (upstream's default; never changed)
        store_averaged_over_steps: bool = True,
        cross_attention_kwargs: dict[str, Any] | None = None,
        guidance_rescale: float = 0.0,
        clip_skip: int | None = None,
        callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006  (likewise)
    ) -> LEditsPPDiffusionPipelineOutput | tuple:
        """Edit the images that were inverted last; arguments that are not named here are `StableDiffusionPipeline`'s.

        Args:
            negative_prompt: what the prediction without a concept is made with: one text for all images, or one for each.
            generator: not used by most autoencoders.
            editing_prompt: the concepts: one text, or several. Without any, the images come back as they were.
            editing_prompt_embeds: embeddings instead of texts, (concepts, tokens, size); of the same shape as `negative_prompt_embeds`, if
                those are given.
            reverse_editing_direction: go away from a concept. This and the next four: one value for all concepts, or a list.
            edit_guidance_scale: how far to go towards a concept.
            edit_warmup_steps: first steps without it.
            edit_cooldown_steps: number of the step from which on it is left out; by default none.
            edit_threshold: the part of the image, from 0 to 1, that is not changed.
            user_mask: what changes are multiplied by, (height, width) of the latents or with axes before those.
            sem_guidance: changes of the first steps instead of concepts, each of the latents' shape: `sem_guidance` of a call before.
            use_cross_attn_mask: change only where the UNet's cross-attention to a concept is strongest, instead of where the change is
                largest. As in PyTorch diffusers, with transformers 5 the padding after a text counts as the concept's.
            use_intersect_mask: change only where both are, but up to timestep 800 where attention is.
            attn_store_steps: numbers of the steps whose attention maps are kept in `attention_store`.
            store_averaged_over_steps: keep their sum, instead of each.
            guidance_rescale: see `rescale_noise_cfg`, with the mean of the concepts' predictions. (PyTorch diffusers fails with concepts.)
            clip_skip: how many of CLIP's last layers to leave out for the concepts.

        Raises:
            ConfigError: no image was inverted, arguments that do not fit together (see `check_inputs`), or masks of cross-attention for
                embeddings without texts.
            UnsupportedError: masks of cross-attention in MindSpore's global graph mode.
        """
        callback_on_step_end_tensor_inputs = self._begin(
            1.0, clip_skip, cross_attention_kwargs, callback_on_step_end, callback_on_step_end_tensor_inputs, guidance_rescale
        )
        prompts = self._count_concepts(editing_prompt, editing_prompt_embeds)
        self.check_inputs(negative_prompt, editing_prompt_embeds, negative_prompt_embeds, callback_on_step_end_tensor_inputs)
        check_output_type(output_type)

        concepts, negative_prompt_embeds, tokens = self.encode_prompt(
            self.device, 1, self.enabled_editing_prompts > 0, negative_prompt, prompts, negative_prompt_embeds, editing_prompt_embeds,
            (cross_attention_kwargs or {}).get("scale"), clip_skip,
        )  # fmt: skip
        tensors = {
            "latents": self.init_latents,
            "prompt_embeds": self._with_concepts(negative_prompt_embeds, concepts),
            "negative_prompt_embeds": negative_prompt_embeds,
            "w_embedding": None,
        }
        latents = self._edit(
            self.inversion_steps, tensors, prompts, tokens, use_cross_attn_mask, use_intersect_mask, attn_store_steps,
            store_averaged_over_steps, callback_on_step_end, callback_on_step_end_tensor_inputs, edit_threshold=edit_threshold,
            reverse_editing_direction=reverse_editing_direction, edit_guidance_scale=edit_guidance_scale, user_mask=user_mask,
            edit_warmup_steps=edit_warmup_steps, edit_cooldown_steps=edit_cooldown_steps, sem_guidance=sem_guidance,
            guidance_rescale=guidance_rescale,
        )  # fmt: skip
        return self._finish(*self._decode(latents, output_type, negative_prompt_embeds.dtype, generator), return_dict)

    def check_inputs(
        self,
        negative_prompt: Any = None,
        editing_prompt_embeddings: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> None:
        """Check the arguments of `__call__`.

        Raises:
            ConfigError: an unknown callback tensor, both a negative prompt and its embeddings, or embeddings of different shapes.
        """
        self._check_callback_inputs(callback_on_step_end_tensor_inputs)
        if negative_prompt is not None and negative_prompt_embeds is not None:
            raise ConfigError("`negative_prompt` and `negative_prompt_embeds` are both given: pass one of them")
        given = editing_prompt_embeddings is not None and negative_prompt_embeds is not None
        if given and editing_prompt_embeddings.shape != negative_prompt_embeds.shape:
            raise ConfigError(
                f"editing_prompt_embeds has shape {editing_prompt_embeddings.shape} and negative_prompt_embeds "
                f"{negative_prompt_embeds.shape}: they have to be equal"
            )

    def encode_prompt(
        self,
        device: Any,
        num_images_per_prompt: int,
        enable_edit_guidance: bool,
        negative_prompt: str | list[str] | None = None,
        editing_prompt: str | list[str] | None = None,
        negative_prompt_embeds: Tensor | None = None,
        editing_prompt_embeds: Tensor | None = None,
        lora_scale: float | None = None,
        clip_skip: int | None = None,
    ) -> tuple[Tensor | None, Tensor, np.ndarray | None]:
        """Embeddings of concepts and of negative prompts, for the images that were inverted last.

        Args:
            device: not used.
            num_images_per_prompt: how often to repeat each.
            enable_edit_guidance: whether there are concepts.
            negative_prompt: one text for all images, or one for each; empty by default.
            editing_prompt: the concepts.
            negative_prompt_embeds: embeddings instead of texts, (images, tokens, size).
            editing_prompt_embeds: likewise.
            lora_scale: not supported yet.
            clip_skip: how many of CLIP's last layers to leave out for the concepts.

        Returns:
            (concepts * images, tokens, size), those of one concept side by side; (images, tokens, size); and of texts how many tokens each
            of the first has.

        Raises:
            ConfigError: as many negative prompts as images were not given.
            UnsupportedError: a `lora_scale`.
        """
        check_lora_scale(lora_scale)
        dtype, tokens = self.text_encoder.dtype, None
        if negative_prompt_embeds is None:
            texts = negative_prompts(None, negative_prompt, self.batch_size)
            negative_prompt_embeds = embed_prompts(self.text_encoder, self.tokenizer, texts)
        if enable_edit_guidance:
            if editing_prompt_embeds is None:
                concepts, length = [editing_prompt] if isinstance(editing_prompt, str) else editing_prompt, negative_prompt_embeds.shape[1]
                texts = [text for text in concepts for _ in range(self.batch_size)]
                tokens = edit_tokens(self.tokenizer, texts, length)
                editing_prompt_embeds = embed_prompts(self.text_encoder, self.tokenizer, texts, clip_skip, length)
            editing_prompt_embeds = F.repeat_interleave(editing_prompt_embeds.astype(dtype), num_images_per_prompt, 0)
        return editing_prompt_embeds, F.repeat_interleave(negative_prompt_embeds.astype(dtype), num_images_per_prompt, 0), tokens
