"""What the LEdits++ pipelines share (arXiv:2311.16711): inverting an image, and denoising it again with changes."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
from mindspore import Tensor

from ...backend.graph import in_global_graph_mode
from ...core import logging
from ...core.errors import ConfigError, UnsupportedError
from ...core.random import randn_tensor
from ...image_processor import PipelineImageInput
from ...nn import functional as F
from ...schedulers.scheduling_ddim import DDIMScheduler
from ...schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from ..denoising import denoise
from ..guidance import classifier_free_guidance
from ..guided import GuidedPipeline
from ..schedule import accepted_by
from .attention import LeditsAttentionStore, LEDITSCrossAttnProcessor
from .guidance import SemanticGuidance, attention_mask
from .pipeline_output import LEditsPPInversionPipelineOutput

logger = logging.get_logger(__name__)


class LEditsPPBase(GuidedPipeline):
    """Base of the pipelines that edit images with words.

    `invert` finds the noise of each step that leads back to an image; a call takes the same steps with the same noise, and changes what the
    UNet predicts towards or away from concepts. The scheduler is `DPMSolverMultistepScheduler` of the second order with the algorithm
    "sde-dpmsolver++", or `DDIMScheduler` (edit-friendly DDPM inversion, arXiv:2304.06140); another is replaced by the first. The noise is
    that of the scheduler's own step, so the image comes back; where PyTorch diffusers has another formula in the inversion than in the
    step, which is DDIM's "v_prediction", "heun", and a last step with "sigma_min", it does not there.

    Attributes:
        inversion_steps: timesteps of the last inversion; None before the first.
        init_latents: the noisiest latents, (images, channels, height, width).
        zs: noise of each step, (steps, images, channels, height, width).
        batch_size: images inverted.
        enabled_editing_prompts: concepts of the last call.
        sem_guidance: what the last call added to each step's prediction, (steps, images, channels, height, width), for `sem_guidance=`;
            None if nothing.
        activation_mask: where, for each concept, (steps, concepts, images, channels, height, width).
        attention_store: attention maps of the steps in `attn_store_steps`.
    """

    inversion_steps: np.ndarray | None = None
    _noise_mask_from: float = math.inf
    """The noisiest timestep where masks of cross-attention are intersected with those of the noise."""

    def _guided_batch(self, positive: Tensor, negative: Tensor) -> Tensor:
        """For a prediction without a concept, and one with each."""
        return F.cat((negative, *(positive,) * self.enabled_editing_prompts), 0) if self.enabled_editing_prompts else negative

    def _with_concepts(self, without: Tensor, concepts: Tensor | None) -> Tensor:
        """Embeddings of `_guided_batch`: those without a concept, one for each image, and those with, one for each or for each concept."""
        if concepts is None or not self.enabled_editing_prompts:
            return without
        repeats = self.enabled_editing_prompts * self.batch_size // concepts.shape[0]
        return F.cat((without, F.repeat_interleave(concepts.astype(without.dtype), repeats, 0)), 0)

    def encode_image(
        self,
        image: PipelineImageInput,
        dtype: Any = None,
        height: int | None = None,
        width: int | None = None,
        resize_mode: str = "default",
        crops_coords: tuple[int, int, int, int] | None = None,
    ) -> tuple[Tensor, list]:
        """Scaled latents of images, the modes of their distributions, and the images as they were encoded.

        Args:
            image: in any of `VaeImageProcessor.preprocess`'s formats.
            dtype: of the latents; by default the autoencoder's.
            height, width, resize_mode, crops_coords: see `VaeImageProcessor.preprocess`.

        Raises:
            ConfigError: a height or width that is not a multiple of 32.
        """
        pixels = self.image_processor.preprocess(image, height, width, resize_mode, crops_coords)
        _check_sides(*pixels.shape[2:])
        if max(pixels.shape[2:]) > self.vae.config.sample_size * 1.5:
            logger.warning(
                f"the images have {pixels.shape[2]} x {pixels.shape[3]} pixels, far more than the model was trained with: there may be "
                "severe artifacts. Pass `height` and `width` to make them smaller."
            )
        latents = self._encode(pixels, None, "argmax")
        return latents.astype(dtype or latents.dtype), self.image_processor.postprocess(pixels, "pil")

    def _start_inversion(
        self, image: PipelineImageInput, num_inversion_steps: int, skip: float, dtype: Any, height: int | None, width: int | None,
        resize_mode: str, crops_coords: tuple[int, int, int, int] | None,
    ) -> tuple[Tensor, list]:  # fmt: skip
        """Set the steps; see `encode_image`."""
        _check_sides(height, width)
        _check_scheduler(self.scheduler)
        self.scheduler.register_to_config(timestep_spacing="leading")
        self.scheduler.set_timesteps(int(num_inversion_steps * (1 + skip)))
        latents, shown = self.encode_image(image, dtype, height, width, resize_mode, crops_coords)
        self.inversion_steps, self.batch_size = self.scheduler.timesteps[-num_inversion_steps:], latents.shape[0]
        return latents, shown

    def _invert(
        self, latents: Tensor, shown: list, tensors: dict[str, Any], guidance_scale: float, generator: Any, zero_noise_steps: int = 0
    ) -> LEditsPPInversionPipelineOutput:
        """Find the noise of each step (arXiv:2311.16711, section 3.2).

        Args:
            latents: of the images.
            shown: the images.
            tensors: what the UNet takes beside latents, for one prediction or, with guidance, two.
            guidance_scale: how far to go from the first towards the second.
            generator: draws the noise of the samples to lead through.
            zero_noise_steps: the last steps, whose noise is left out.
        """
        reconstruction = self._decode_latents(latents, generator=generator)
        scheduler, steps = self.scheduler, self.inversion_steps
        samples = [latents]
        for index in reversed(range(len(steps))):  # the least noisy is drawn first, as in PyTorch diffusers
            noise = randn_tensor(latents.shape, generator=generator, dtype=latents.dtype)
            samples.insert(0, scheduler.add_noise(latents, noise, steps[index : index + 1]))

        predict, options = self._predictor(), accepted_by(scheduler.step, eta=1.0)
        nothing, noises = F.zeros(latents.shape, latents.dtype), []
        for index, t in enumerate(self.progress_bar(steps.tolist())):
            level = fresh_noise_level(scheduler, t)
            prediction = predict(samples[index], t, tensors)
            if self.enabled_editing_prompts:
                prediction = classifier_free_guidance(prediction, guidance_scale)
            mean = scheduler.step(prediction, t, samples[index], variance_noise=nothing, return_dict=False, **options)[0]
            noises.append((samples[index + 1] - mean) / level if level > 0 else nothing)
            samples[index + 1] = mean + level * noises[-1]  # what the step gives: rounding errors do not add up

        kept = max(len(noises) - zero_noise_steps, 0)
        self.init_latents, self.zs = samples[0], F.stack(noises[:kept] + [nothing] * (len(noises) - kept))
        self.maybe_free_model_hooks()
        return LEditsPPInversionPipelineOutput(shown, self.image_processor.postprocess(reconstruction, "pil"))

    def _count_concepts(self, editing_prompt: str | list[str] | None, embeds: Tensor | None) -> list[str] | None:
        """The concepts of a call, as a list of texts if there are texts; sets how many.

        Raises:
            ConfigError: no image was inverted.
        """
        if self.inversion_steps is None:
            raise ConfigError("no image was inverted: call `invert` first; a call edits the last image inverted")
        prompts = [editing_prompt] if editing_prompt and isinstance(editing_prompt, str) else editing_prompt or None
        self.enabled_editing_prompts = len(prompts) if prompts else 0 if embeds is None else embeds.shape[0]
        return prompts

    def _edit(
        self,
        timesteps: np.ndarray,
        tensors: dict[str, Any],
        prompts: list[str] | None,
        tokens: Sequence[int] | None,
        use_cross_attn_mask: bool,
        use_intersect_mask: bool,
        attn_store_steps: Sequence[int] | None,
        store_averaged_over_steps: bool,
        callback_on_step_end: Callable | None,
        callback_on_step_end_tensor_inputs: Sequence[str],
        **guidance: Any,
    ) -> Tensor:
        """Denoise the inverted images with changes.

        Args:
            timesteps: those of the inversion, or the first of them.
            tensors: see `denoise`.
            prompts: the concepts' texts, if they are known.
            tokens: how many tokens of each are looked for in attention maps.
            use_cross_attn_mask, use_intersect_mask, attn_store_steps, store_averaged_over_steps, callback_on_step_end,
                callback_on_step_end_tensor_inputs: see the pipelines.
            guidance: the other arguments of `SemanticGuidance`, by name.

        Returns:
            The latents.

        Raises:
            ConfigError: masks of cross-attention for embeddings without their texts.
            UnsupportedError: masks of cross-attention in MindSpore's global graph mode.
        """
        self.scheduler.set_timesteps(len(self.scheduler.timesteps))
        concepts, size = self.enabled_editing_prompts, self.init_latents.shape[2:]
        attends = bool(concepts) and (use_cross_attn_mask or use_intersect_mask)
        mask, noise_mask_from, collecting = None, math.inf, nullcontext()
        if attends:
            self._check_attention_masks(tokens)
            self.attention_store = LeditsAttentionStore(
                store_averaged_over_steps, self.batch_size, max_resolution=None, max_size=size[0] / 4 * (size[1] / 4)
            )
            mask = functools.partial(attention_mask, self.attention_store, (size[0] // 4, size[1] // 4), prompts, tokens)
            noise_mask_from = self._noise_mask_from if use_intersect_mask else -math.inf
            collecting = self._collecting_attention()
        change = SemanticGuidance(concepts, attention_mask=mask, noise_mask_from=noise_mask_from, **guidance)
        predict_all, step_kwargs = self._predictor(), accepted_by(self.scheduler.step, eta=1.0)

        def predict(latents: Tensor, t: float, tensors: dict[str, Any]) -> Tensor:
            step_kwargs["variance_noise"] = self.zs[tensors["step"]]  # of the step that follows
            return change(F.chunk(predict_all(latents, t, tensors), 1 + concepts), tensors["step"], t)

        def after_step(step: int, tensors: dict[str, Any]) -> Tensor:
            if attends:
                self.attention_store.between_steps(step in (attn_store_steps or ()))
            return tensors["latents"]

        with collecting:
            latents = denoise(
                self, timesteps, len(timesteps), tensors, predict, step_kwargs, callback_on_step_end, callback_on_step_end_tensor_inputs,
                after_step,
            )  # fmt: skip
        self.sem_guidance, self.activation_mask = change.history()
        return latents

    def _check_attention_masks(self, tokens: Sequence[int] | None) -> None:
        off = "pass use_cross_attn_mask=False and use_intersect_mask=False"
        if tokens is None:
            raise ConfigError(f"masks of cross-attention need the editing prompts' texts, not embeddings: pass editing_prompt, or {off}")
        if in_global_graph_mode():
            raise UnsupportedError(f"a compiled UNet gives no attention maps: {off}, or leave MindSpore's global graph mode")

    def prepare_unet(self, attention_store: LeditsAttentionStore, PnP: bool = False) -> None:
        """Have the UNet's cross-attentions show their maps to a store from now on, but for its middle's; a call does so by itself while it
        runs.

        Args:
            attention_store: the store.
            PnP: see `LeditsAttentionStore.__call__`.
        """
        processors = self.unet.attn_processors
        for name in processors:
            place = name.split("_")[0]
            if "attn2" in name and place in ("down", "up"):
                processors[name] = LEDITSCrossAttnProcessor(attention_store, place, PnP, self.enabled_editing_prompts)
        self.unet.set_attn_processor(processors)

    @contextmanager
    def _collecting_attention(self) -> Iterator[None]:
        """A UNet in graph mode runs eagerly meanwhile, as nothing can be kept from inside a graph."""
        original = self.unet.attn_processors
        with self.unet.running_eagerly():
            self.prepare_unet(self.attention_store)
            try:
                yield
            finally:
                self.unet.set_attn_processor(original)


def fresh_noise_level(scheduler: DDIMScheduler | DPMSolverMultistepScheduler, timestep: int) -> float:
    """Standard deviation of the noise that is added in the step from a timestep, with DDIM's eta = 1."""
    if isinstance(scheduler, DDIMScheduler):
        stride = scheduler.config.num_train_timesteps // scheduler.num_inference_steps
        return scheduler._get_variance(timestep, timestep - stride) ** 0.5
    index = scheduler.index_for_timestep(timestep)
    sigma, sigma_next = scheduler.sigmas[index : index + 2].tolist()
    return sigma_next * ((1 - (sigma_next / sigma) ** 2) / (1 + sigma_next**2)) ** 0.5


def edit_tokens(tokenizer: Any, prompts: list[str], max_length: int) -> np.ndarray:
    """How many tokens each text has beside its start and end, as the tokenizer counts: transformers 5 counts the padding, too, and so masks
    are made of the attention to all tokens."""
    options = {"padding": "max_length", "max_length": max_length, "truncation": True, "return_tensors": "np"}
    return tokenizer(prompts, return_length=True, **options).length - 2


def supported_scheduler(scheduler: Any) -> DDIMScheduler | DPMSolverMultistepScheduler:
    """The scheduler, or with a warning what takes its place."""
    if isinstance(scheduler, (DDIMScheduler, DPMSolverMultistepScheduler)):
        return scheduler
    logger.warning(f"{type(scheduler).__name__} has no inversion: DPMSolverMultistepScheduler takes its place; DDIMScheduler could too")
    return DPMSolverMultistepScheduler.from_config(scheduler.config, algorithm_type="sde-dpmsolver++", solver_order=2)


def _check_scheduler(scheduler: Any) -> None:
    second_order = isinstance(scheduler, DPMSolverMultistepScheduler) and (
        scheduler.config.algorithm_type == "sde-dpmsolver++" and scheduler.config.solver_order == 2
    )
    if not second_order and not isinstance(scheduler, DDIMScheduler):
        raise UnsupportedError(
            f"{type(scheduler).__name__} cannot be inverted; expected DDIMScheduler, or DPMSolverMultistepScheduler with "
            "algorithm_type='sde-dpmsolver++' and solver_order=2"
        )


def _check_sides(height: int | None, width: int | None) -> None:
    if any(side is not None and side % 32 for side in (height, width)):
        raise ConfigError(f"height and width are {height} and {width}; expected multiples of 32: pass those to have images resized")
