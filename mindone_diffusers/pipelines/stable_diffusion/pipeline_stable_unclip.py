"""Text to image by way of a CLIP embedding of the image, with Stable unCLIP (arXiv:2204.06125)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mindspore import Tensor

from ...core.errors import ConfigError
from ...image_processor import check_output_type
from ...models.autoencoders.autoencoder_kl import AutoencoderKL
from ...models.transformers.prior_transformer import PriorTransformer
from ...models.unets.unet_2d_condition import UNet2DConditionModel
from ...nn import functional as F
from ...schedulers.scheduling_utils import KarrasDiffusionSchedulers
from ...text_encoders.clip import CLIPTextModel, CLIPTextModelWithProjection
from ..clip_prompts import embed_and_project_prompts
from ..denoising import denoise
from ..guidance import classifier_free_guidance
from ..latents import check_shape, prepare_latents
from ..pipeline_utils import ImagePipelineOutput
from ..schedule import accepted_by, retrieve_timesteps
from .stable_unclip import StableUnCLIPBase
from .stable_unclip_image_normalizer import StableUnCLIPImageNormalizer

if TYPE_CHECKING:
    from transformers import CLIPTokenizer


class StableUnCLIPPipeline(StableUnCLIPBase):
    """Denoises a CLIP embedding of the image that a prompt describes, and then the image, whose UNet is shown that embedding as its class.

    Args:
        prior_tokenizer: transformers' tokenizer for `prior_text_encoder`.
        prior_text_encoder: embeds the prompt for the prior.
        prior: predicts embeddings of images.
        prior_scheduler: of the prior's steps: any of `KarrasDiffusionSchedulers`, or `UnCLIPScheduler`.
        image_normalizer: the embeddings' statistics.
        image_noising_scheduler: adds noise to the embeddings.

    The other components are `StableDiffusionBase`'s.
    """

    model_cpu_offload_seq = "text_encoder->prior_text_encoder->unet->vae"
    _exclude_from_cpu_offload = ["prior", "image_normalizer"]

    def __init__(
        self,
        prior_tokenizer: "CLIPTokenizer",
        prior_text_encoder: CLIPTextModelWithProjection,
        prior: PriorTransformer,
        prior_scheduler: KarrasDiffusionSchedulers,
        image_normalizer: StableUnCLIPImageNormalizer,
        image_noising_scheduler: KarrasDiffusionSchedulers,
        tokenizer: "CLIPTokenizer",
        text_encoder: CLIPTextModel,
        unet: UNet2DConditionModel,
        scheduler: KarrasDiffusionSchedulers,
        vae: AutoencoderKL,
    ):
        self.register_modules(
            prior_tokenizer=prior_tokenizer, prior_text_encoder=prior_text_encoder, prior=prior, prior_scheduler=prior_scheduler,
            image_normalizer=image_normalizer, image_noising_scheduler=image_noising_scheduler, tokenizer=tokenizer,
            text_encoder=text_encoder, unet=unet, scheduler=scheduler, vae=vae,
        )  # fmt: skip

    def __call__(
        self,
        prompt: str | list[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 20,
        guidance_scale: float = 10.0,
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
        noise_level: int = 0,
        prior_num_inference_steps: int = 25,
        prior_guidance_scale: float = 4.0,
        prior_latents: Tensor | None = None,
        clip_skip: int | None = None,
    ) -> ImagePipelineOutput | tuple:
        """Draw images; arguments that are not named here are `StableDiffusionPipeline`'s.

        Args:
            prompt: what to draw, for the prior too, which has no other way to be told.
            prompt_embeds: not possible for that reason (PyTorch diffusers fails in the tokenizer).
            callback: called as `callback(step, timestep, latents)`, first with the embeddings that the prior denoises; with schedulers of
                second order once for the two parts of a step (PyTorch diffusers calls it for each).
            callback_steps: at every how many steps.
            noise_level: how much noise the embedding of the image gets, a timestep of `image_noising_scheduler`.
            prior_num_inference_steps: how many steps the prior takes.
            prior_guidance_scale: its guidance scale; 1 means none.
            prior_latents: standard normal numbers that it starts from, (images, size of the embeddings).

        Raises:
            ConfigError: arguments that do not fit together; see `check_inputs`.
        """
        default = self._default_size()
        height, width = height or default[0], width or default[1]
        self._begin(guidance_scale, clip_skip, cross_attention_kwargs, None, [])
        self.check_inputs(prompt, height, width, callback_steps, noise_level, negative_prompt, prompt_embeds, negative_prompt_embeds)
        check_output_type(output_type)

        image_embeds = self._predict_embeddings(
            [prompt] if isinstance(prompt, str) else prompt, num_images_per_prompt, prior_num_inference_steps, prior_guidance_scale,
            prior_latents, generator, eta, callback, callback_steps,
        )  # fmt: skip
        tensors, images = self._embed(prompt, negative_prompt, num_images_per_prompt, None, negative_prompt_embeds)
        noised = self.noise_image_embeddings(image_embeds, noise_level, generator=generator)
        timesteps, _ = retrieve_timesteps(self.scheduler, num_inference_steps)
        shape = (images, self.unet.config.in_channels, height // self.vae_scale_factor, width // self.vae_scale_factor)
        tensors["latents"] = self.prepare_latents(shape, tensors["prompt_embeds"].dtype, self.device, generator, latents, self.scheduler)
        step_kwargs = self.prepare_extra_step_kwargs(generator, eta)
        return self._draw(noised, timesteps, tensors, step_kwargs, callback, callback_steps, output_type, return_dict)

    def _predict_embeddings(
        self,
        prompts: list[str],
        num_images_per_prompt: int,
        num_inference_steps: int,
        guidance_scale: float,
        latents: Tensor | None,
        generator: Any,
        eta: float,
        callback: Callable[[int, float, Tensor], None] | None,
        callback_steps: int,
    ) -> Tensor:
        """CLIP embeddings of images of the prompts, (prompts * num_images_per_prompt, size), as the prior denoises them."""
        guided = guidance_scale > 1.0
        texts = [""] * len(prompts) + prompts if guided else prompts
        projected, states, mask = (
            F.repeat_interleave(tensor, num_images_per_prompt, 0)
            for tensor in embed_and_project_prompts(self.prior_text_encoder, self.prior_tokenizer, texts)
        )
        timesteps, _ = retrieve_timesteps(self.prior_scheduler, num_inference_steps)
        shape = (len(prompts) * num_images_per_prompt, self.prior.config.embedding_dim)
        latents = self.prepare_latents(shape, projected.dtype, self.device, generator, latents, self.prior_scheduler)

        def predict(latents: Tensor, t: float, tensors: dict[str, Any]) -> Tensor:
            sample = self.prior_scheduler.scale_model_input(F.cat((latents, latents), 0) if guided else latents, t)
            predicted = self.prior(sample, t, projected, states, mask, return_dict=False)[0]
            return classifier_free_guidance(predicted, guidance_scale) if guided else predicted

        latents = denoise(
            self, timesteps, len(timesteps) // self.prior_scheduler.order, {"latents": latents}, predict,
            self.prepare_prior_extra_step_kwargs(generator, eta), callback=callback, callback_steps=callback_steps,
            scheduler=self.prior_scheduler,
        )  # fmt: skip
        return self.prior.post_process_latents(latents)

    def prepare_latents(
        self, shape: tuple[int, ...], dtype: Any, device: Any, generator: Any, latents: Tensor | None, scheduler: Any
    ) -> Tensor:
        """Latents of the scheduler's first noise level; see `latents.prepare_latents`. `device` is not used.

        Raises:
            ConfigError: `latents` of another shape.
        """
        check_shape(latents, shape)
        return prepare_latents(shape, dtype, generator, latents, scheduler.init_noise_sigma)

    def prepare_prior_extra_step_kwargs(self, generator: Any, eta: float) -> dict[str, Any]:
        """Those of the two that the prior scheduler's `step` takes."""
        return accepted_by(self.prior_scheduler.step, eta=eta, generator=generator)

    def check_inputs(
        self,
        prompt: Any,
        height: int,
        width: int,
        callback_steps: int,
        noise_level: int,
        negative_prompt: Any = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
    ) -> None:
        """Check the arguments of `__call__`.

        Raises:
            ConfigError: a size that is not a multiple of 8, no prompt, one of another type, embeddings of it, a negative prompt and its
                embeddings, or a noise level that the scheduler does not have.
            TypeError: prompt and negative prompt are not both strings or both lists.
        """
        self._check_arguments(prompt, height, width, callback_steps, noise_level, negative_prompt, prompt_embeds, negative_prompt_embeds)
        if prompt is None:
            raise ConfigError("prompt is None: the prior embeds the prompt itself, so that prompt_embeds cannot stand for it")
