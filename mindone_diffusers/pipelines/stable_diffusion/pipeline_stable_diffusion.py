"""Text to image with Stable Diffusion 1 and 2 (arXiv:2112.10752)."""

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import mindspore as ms
import numpy as np
from mindspore import Tensor
from packaging.version import Version

from ...callbacks import MultiPipelineCallbacks, PipelineCallback
from ...core import logging
from ...core.errors import ConfigError, UnsupportedError
from ...image_processor import PipelineImageInput, check_output_type
from ...models.autoencoders.autoencoder_kl import AutoencoderKL
from ...models.unets.unet_2d_condition import UNet2DConditionModel
from ...nn import functional as F
from ...schedulers.scheduling_utils import KarrasDiffusionSchedulers
from ...text_encoders.clip import CLIPTextModel, CLIPVisionModelWithProjection
from .. import clip_prompts
from ..denoising import denoise
from ..guidance import classifier_free_guidance, guidance_scale_embedding, rescale_noise_cfg  # noqa: F401
from ..latents import prepare_latents
from ..pipeline_utils import DiffusionPipeline, StableDiffusionMixin
from ..schedule import accepted_by, retrieve_timesteps
from .pipeline_output import StableDiffusionPipelineOutput
from .safety_checker import StableDiffusionSafetyChecker

if TYPE_CHECKING:
    from transformers import CLIPImageProcessor, CLIPTokenizer

logger = logging.get_logger(__name__)


class StableDiffusionPipeline(DiffusionPipeline, StableDiffusionMixin):
    """Draws images of prompts.

    Args:
        vae: decodes latents; `AutoencoderKL` or `AutoencoderTiny`.
        text_encoder: embeds the prompt.
        tokenizer: transformers' tokenizer for it.
        unet: predicts the noise in latents.
        scheduler: any of `KarrasDiffusionSchedulers`.
        safety_checker: blacks out unsafe images; may be None.
        feature_extractor: prepares images for it.
        image_encoder: for IP-Adapters; may be None.
        requires_safety_checker: warn if there is no safety checker.

    Raises:
        ConfigError: a safety checker without a feature extractor.
    """

    model_cpu_offload_seq = "text_encoder->image_encoder->unet->vae"
    _optional_components = ["safety_checker", "feature_extractor", "image_encoder"]
    _exclude_from_cpu_offload = ["safety_checker"]
    _callback_tensor_inputs = ["latents", "prompt_embeds", "negative_prompt_embeds"]

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: "CLIPTokenizer",
        unet: UNet2DConditionModel,
        scheduler: KarrasDiffusionSchedulers,
        safety_checker: StableDiffusionSafetyChecker,
        feature_extractor: "CLIPImageProcessor",
        image_encoder: CLIPVisionModelWithProjection | None = None,
        requires_safety_checker: bool = True,
    ):
        correct_early_configs(scheduler, unet)
        if safety_checker is None and requires_safety_checker:
            logger.warning(
                f"{type(self).__name__} runs without its safety checker. Stable Diffusion's license asks you not to show unfiltered "
                "results to the public; keep the checker in anything that is open to it."
            )
        if safety_checker is not None and feature_extractor is None:
            raise ConfigError("a safety_checker needs a feature_extractor: pass one, or safety_checker=None")
        self.register_modules(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler, safety_checker=safety_checker,
            feature_extractor=feature_extractor, image_encoder=image_encoder,
        )  # fmt: skip
        self.register_to_config(requires_safety_checker=requires_safety_checker)

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
        if isinstance(callback_on_step_end, (PipelineCallback, MultiPipelineCallbacks)):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        if not height or not width:
            height, width = self._default_size()
        self.check_inputs(
            prompt, height, width, None, negative_prompt, prompt_embeds, negative_prompt_embeds, ip_adapter_image,
            ip_adapter_image_embeds, callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        check_output_type(output_type)
        self._guidance_scale, self._guidance_rescale = guidance_scale, guidance_rescale
        self._clip_skip, self._cross_attention_kwargs = clip_skip, cross_attention_kwargs
        self._interrupt = False

        prompt_embeds, negative_prompt_embeds = self.encode_prompt(
            prompt, self.device, num_images_per_prompt, self.do_classifier_free_guidance, negative_prompt, prompt_embeds,
            negative_prompt_embeds, (cross_attention_kwargs or {}).get("scale"), clip_skip,
        )  # fmt: skip
        images = prompt_embeds.shape[0]
        if self.do_classifier_free_guidance:
            prompt_embeds = F.cat((negative_prompt_embeds, prompt_embeds), 0)

        timesteps, num_inference_steps = retrieve_timesteps(self.scheduler, num_inference_steps, None, timesteps, sigmas)
        self._num_timesteps = len(timesteps)
        latents = self.prepare_latents(
            images, self.unet.config.in_channels, height, width, prompt_embeds.dtype, self.device, generator, latents
        )
        timestep_cond = None
        if self.unet.config.time_cond_proj_dim is not None:
            scales = np.full(images, guidance_scale - 1)
            timestep_cond = self.get_guidance_scale_embedding(scales, self.unet.config.time_cond_proj_dim).astype(latents.dtype)

        def predict(latents: Tensor, t: float, tensors: dict[str, Any]) -> Tensor:
            guided = self.do_classifier_free_guidance  # a callback may have switched it off
            noise_pred = self.unet(
                self.scheduler.scale_model_input(F.cat((latents, latents), 0) if guided else latents, t),
                t,
                encoder_hidden_states=tensors["prompt_embeds"],
                timestep_cond=timestep_cond,
                cross_attention_kwargs=cross_attention_kwargs,
                return_dict=False,
            )[0]
            return classifier_free_guidance(noise_pred, self.guidance_scale, self.guidance_rescale) if guided else noise_pred

        latents = denoise(
            self, timesteps, num_inference_steps,
            {"latents": latents, "prompt_embeds": prompt_embeds, "negative_prompt_embeds": negative_prompt_embeds}, predict,
            self.prepare_extra_step_kwargs(generator, eta), callback_on_step_end, callback_on_step_end_tensor_inputs,
        )  # fmt: skip

        image, unsafe = latents, None
        if output_type != "latent":
            image = self.vae.decode(latents / self.vae.config.scaling_factor, return_dict=False, generator=generator)[0]
            image, unsafe = self.run_safety_checker(image, self.device, prompt_embeds.dtype)
        shown = None if unsafe is None else [not flag for flag in unsafe]  # black images are 0 already
        image = self.image_processor.postprocess(image, output_type, shown)
        self.maybe_free_model_hooks()
        return StableDiffusionPipelineOutput(image, unsafe) if return_dict else (image, unsafe)

    def _default_size(self) -> tuple[int, int]:
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return height * self.vae_scale_factor, width * self.vae_scale_factor

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
        if height % 8 or width % 8:
            raise ConfigError(f"height and width are {height} and {width}; expected multiples of 8")
        if callback_steps is not None and (not isinstance(callback_steps, int) or callback_steps <= 0):
            raise ConfigError(f"callback_steps is {callback_steps!r}; expected a positive integer")
        unknown = [name for name in callback_on_step_end_tensor_inputs or () if name not in self._callback_tensor_inputs]
        if unknown:
            raise ConfigError(f"callback_on_step_end_tensor_inputs has {unknown}; expected names among {self._callback_tensor_inputs}")
        if prompt is not None and prompt_embeds is not None:
            raise ConfigError("`prompt` and `prompt_embeds` are both given: pass one of them")
        if prompt is None and prompt_embeds is None:
            raise ConfigError("neither `prompt` nor `prompt_embeds` is given: pass one of them")
        if prompt is not None and not isinstance(prompt, (str, list)):
            raise ConfigError(f"prompt is a {type(prompt).__name__}; expected a string or a list of strings")
        if negative_prompt is not None and negative_prompt_embeds is not None:
            raise ConfigError("`negative_prompt` and `negative_prompt_embeds` are both given: pass one of them")
        if prompt_embeds is not None and negative_prompt_embeds is not None and prompt_embeds.shape != negative_prompt_embeds.shape:
            raise ConfigError(
                f"prompt_embeds has shape {prompt_embeds.shape} and negative_prompt_embeds {negative_prompt_embeds.shape}: they have to "
                "be equal"
            )
        if ip_adapter_image is not None or ip_adapter_image_embeds is not None:
            raise UnsupportedError("IP-Adapters are not there yet: leave out ip_adapter_image and ip_adapter_image_embeds.")

    def encode_prompt(
        self,
        prompt: str | list[str] | None,
        device: Any,
        num_images_per_prompt: int,
        do_classifier_free_guidance: bool,
        negative_prompt: str | list[str] | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        lora_scale: float | None = None,
        clip_skip: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Embeddings of the prompts and negative prompts; see `clip_prompts.encode_prompt`. `device` is not used.

        Raises:
            UnsupportedError: a `lora_scale`.
        """
        if lora_scale is not None:
            raise UnsupportedError("LoRA is not there yet: leave out lora_scale, and 'scale' in cross_attention_kwargs.")
        return clip_prompts.encode_prompt(
            self.text_encoder, self.tokenizer, prompt, negative_prompt, prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds, num_images_per_prompt=num_images_per_prompt,
            do_classifier_free_guidance=do_classifier_free_guidance, clip_skip=clip_skip, dtype=self.unet.dtype,
        )  # fmt: skip

    def prepare_latents(
        self,
        batch_size: int,
        num_channels_latents: int,
        height: int,
        width: int,
        dtype: Any,
        device: Any,
        generator: Any,
        latents: Tensor | None = None,
    ) -> Tensor:
        """Latents for images of height x width pixels; see `latents.prepare_latents`. `device` is not used."""
        shape = (batch_size, num_channels_latents, int(height) // self.vae_scale_factor, int(width) // self.vae_scale_factor)
        return prepare_latents(shape, dtype, generator, latents, self.scheduler.init_noise_sigma)

    def prepare_extra_step_kwargs(self, generator: Any, eta: float) -> dict[str, Any]:
        """Those of the two that the scheduler's `step` takes."""
        return accepted_by(self.scheduler.step, eta=eta, generator=generator)

    def get_guidance_scale_embedding(self, w: Any, embedding_dim: int = 512, dtype: Any = ms.float32) -> Tensor:
        """See `guidance.guidance_scale_embedding`."""
        return guidance_scale_embedding(w, embedding_dim, dtype)

    def run_safety_checker(self, image: Tensor | np.ndarray, device: Any, dtype: Any) -> tuple[Any, list[bool] | None]:
        """Black out unsafe images.

        Args:
            image: decoded images, a tensor in [-1, 1] or an array (batch, height, width, channels) in [0, 1].
            device: not used.
            dtype: what the images are shown to the checker in.

        Returns:
            The images, and for each whether it was unsafe; None without a safety checker.
        """
        if self.safety_checker is None:
            return image, None
        is_tensor = isinstance(image, Tensor)
        pictures = self.image_processor.postprocess(image, "pil") if is_tensor else self.numpy_to_pil(image)
        pixels = self.feature_extractor(pictures, return_tensors="np").pixel_values
        return self.safety_checker(images=image, clip_input=Tensor(pixels).astype(dtype))

    @property
    def guidance_scale(self) -> float:
        return self._guidance_scale

    @property
    def guidance_rescale(self) -> float:
        return self._guidance_rescale

    @property
    def clip_skip(self) -> int | None:
        return self._clip_skip

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether the UNet runs with and without the prompt: for scales above 1, unless it takes the scale as an input."""
        return self._guidance_scale > 1 and self.unet.config.time_cond_proj_dim is None

    @property
    def cross_attention_kwargs(self) -> dict[str, Any] | None:
        return self._cross_attention_kwargs

    @property
    def num_timesteps(self) -> int:
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        return self._interrupt


def correct_early_configs(scheduler: Any, unet: Any) -> None:
    """Put right, with a FutureWarning each, what the first Stable Diffusion checkpoints' configs have wrong: `steps_offset` is 1,
    `clip_sample` is False, and a `sample_size` below 64 from before diffusers 0.9 is 64."""
    if scheduler is not None and scheduler.config.get("steps_offset", 1) != 1:
        _correct(scheduler, "steps_offset", 1)
    if scheduler is not None and scheduler.config.get("clip_sample", False) is True:
        _correct(scheduler, "clip_sample", False)
    if unet is not None:
        size, version = unet.config.get("sample_size"), unet.config.get("_diffusers_version")
        if version is not None and Version(version).release < (0, 9) and isinstance(size, int) and size < 64:
            _correct(unet, "sample_size", 64)


def _correct(component: Any, name: str, value: Any) -> None:
    warnings.warn(
        f"the config of this {type(component).__name__} has {name}={component.config[name]}, which is outdated for Stable Diffusion: "
        f"{value} is used. Correct the file it was loaded from.",
        FutureWarning,
        stacklevel=4,
    )
    component.register_to_config(**{name: value})
