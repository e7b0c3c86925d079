"""What the Stable Diffusion 1 and 2 pipelines share (arXiv:2112.10752): their parts, prompts, guidance, safety checker and output."""

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from mindspore import Tensor
from packaging.version import Version

from ...core import logging
from ...core.errors import ConfigError
from ...models.autoencoders.autoencoder_kl import AutoencoderKL
from ...models.unets.unet_2d_condition import UNet2DConditionModel
from ...schedulers.scheduling_utils import KarrasDiffusionSchedulers
from ...text_encoders.clip import CLIPTextModel, CLIPVisionModelWithProjection
from .. import clip_prompts
from ..guided import GuidedPipeline, check_lora_scale
from ..images import latents_of_image
from ..pipeline_utils import ImagePipelineOutput
from ..schedule import get_timesteps
from .pipeline_output import StableDiffusionPipelineOutput
from .safety_checker import StableDiffusionSafetyChecker

if TYPE_CHECKING:
    from transformers import CLIPImageProcessor, CLIPTokenizer

logger = logging.get_logger(__name__)


class StableDiffusionBase(GuidedPipeline):
    """Base of the pipelines with one CLIP text encoder.

    Args:
        vae: encodes images and decodes latents; `AutoencoderKL` or `AutoencoderTiny`.
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
    _output_class = StableDiffusionPipelineOutput
    _scheduler_corrections: dict[str, Any] = {}
    """What `correct_early_configs` makes of a scheduler's config, of pipelines that the first checkpoints are for."""

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
        if self._scheduler_corrections:
            correct_early_configs(scheduler, unet, self._scheduler_corrections)
        self._set_up(
            requires_safety_checker, vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler,
            safety_checker=safety_checker, feature_extractor=feature_extractor, image_encoder=image_encoder,
        )  # fmt: skip

    def _set_up(self, requires_safety_checker: bool, **components: Any) -> None:
        if components["safety_checker"] is None and requires_safety_checker:
            logger.warning(
                f"{type(self).__name__} runs without its safety checker. Stable Diffusion's license asks you not to show unfiltered "
                "results to the public; keep the checker in anything that is open to it."
            )
        if components["safety_checker"] is not None and components["feature_extractor"] is None:
            raise ConfigError("a safety_checker needs a feature_extractor: pass one, or safety_checker=None")
        self.register_modules(**components)
        self.register_to_config(requires_safety_checker=requires_safety_checker)

    def _embed(
        self,
        prompt: Any,
        negative_prompt: Any,
        num_images_per_prompt: int,
        prompt_embeds: Tensor | None,
        negative_prompt_embeds: Tensor | None,
    ) -> tuple[dict[str, Tensor | None], int]:
        """The embeddings that the UNet takes and callbacks are given, and how many images they draw. With guidance the UNet's hold the
        negative prompts' first."""
        prompt_embeds, negative_prompt_embeds = self.encode_prompt(
            prompt, self.device, num_images_per_prompt, self.do_classifier_free_guidance, negative_prompt, prompt_embeds,
            negative_prompt_embeds, (self.cross_attention_kwargs or {}).get("scale"), self.clip_skip,
        )  # fmt: skip
        images = prompt_embeds.shape[0]
        prompt_embeds = self._guided_batch(prompt_embeds, negative_prompt_embeds)
        w_embedding = self._scale_embedding(images, prompt_embeds.dtype)
        return {"prompt_embeds": prompt_embeds, "negative_prompt_embeds": negative_prompt_embeds, "w_embedding": w_embedding}, images

    def _decode(self, latents: Tensor, output_type: str, dtype: Any, generator: Any, **conditions: Any) -> tuple[Any, list[bool] | None]:
        """The images, as `output_type` says, and for each whether it was unsafe. `conditions` go to the VAE's decoder."""
        image, unsafe = latents, None
        if output_type != "latent":
            image = self._decode_latents(latents, generator=generator, **conditions)
            image, unsafe = self.run_safety_checker(image, self.device, dtype)[:2]
        shown = None if unsafe is None else [not flag for flag in unsafe]  # black images are 0 already
        return self.image_processor.postprocess(image, output_type, shown), unsafe

    def _decode_latents(self, latents: Tensor, **conditions: Any) -> Tensor:
        return self.vae.decode(latents / self.vae.config.scaling_factor, return_dict=False, **conditions)[0]

    def _finish(self, image: Any, unsafe: list[bool] | None, return_dict: bool) -> StableDiffusionPipelineOutput | tuple:
        self.maybe_free_model_hooks()
        return self._output_class(image, unsafe) if return_dict else (image, unsafe)

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
        check_lora_scale(lora_scale)
        return clip_prompts.encode_prompt(
            self.text_encoder, self.tokenizer, prompt, negative_prompt, prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds, num_images_per_prompt=num_images_per_prompt,
            do_classifier_free_guidance=do_classifier_free_guidance, clip_skip=clip_skip, dtype=self.unet.dtype,
        )  # fmt: skip

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


class StableDiffusionUncheckedBase(StableDiffusionBase):
    """Base of the pipelines that have no safety checker. They name their components themselves."""

    _optional_components: list[str] = []
    safety_checker = None

    def _finish(self, image: Any, unsafe: None, return_dict: bool) -> ImagePipelineOutput | tuple:
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(image) if return_dict else (image,)


class StableDiffusionImageBase(StableDiffusionBase):
    """Base of the pipelines that add noise to an image and take it away again."""

    def get_timesteps(self, num_inference_steps: int, strength: float, device: Any) -> tuple[np.ndarray, int]:
        """See `schedule.get_timesteps`. `device` is not used."""
        return get_timesteps(self.scheduler, num_inference_steps, strength)

    def prepare_latents(
        self,
        image: Tensor,
        timestep: Any,
        batch_size: int,
        num_images_per_prompt: int,
        dtype: Any,
        device: Any,
        generator: Any = None,
    ) -> Tensor:
        """See `images.latents_of_image`. `device` is not used."""
        batch_size *= num_images_per_prompt
        return latents_of_image(self._encode, self.scheduler, image, timestep, batch_size, dtype, generator)


def correct_early_configs(scheduler: Any, unet: Any, corrections: dict[str, Any]) -> None:
    """Put right, with a FutureWarning each, what the first Stable Diffusion checkpoints' configs have wrong: these entries of the
    scheduler's, and a UNet's `sample_size` below 64 from before diffusers 0.9, which is 64."""
    for name, value in corrections.items():
        if scheduler is not None and scheduler.config.get(name, value) != value:
            correct_config(scheduler, name, value)
    if unet is not None:
        size, version = unet.config.get("sample_size"), unet.config.get("_diffusers_version")
        if version is not None and Version(version).release < (0, 9) and isinstance(size, int) and size < 64:
            correct_config(unet, "sample_size", 64)


def correct_config(component: Any, name: str, value: Any) -> None:
    """Put an entry of a component's config right, with a FutureWarning."""
    warnings.warn(
        f"the config of this {type(component).__name__} has {name}={component.config.get(name)}, which is outdated for Stable Diffusion: "
        f"{value} is used. Correct the file it was loaded from.",
        FutureWarning,
        stacklevel=4,
    )
    component.register_to_config(**{name: value})
