"""Latents twice as large with Stable Diffusion's latent upscaler, a denoiser preconditioned as in arXiv:2206.00364."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mindspore import Tensor

from ...image_processor import PipelineImageInput, check_output_type
from ...models.autoencoders.autoencoder_kl import AutoencoderKL
from ...models.unets.unet_2d_condition import UNet2DConditionModel
from ...nn import functional as F
from ...schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from ...text_encoders.clip import CLIPTextModel
from ..clip_prompts import check_pooled, embed_prompts_and_pool, negative_prompts
from ..denoising import Predict, denoise
from ..guided import check_callback_steps
from ..pipeline_utils import ImagePipelineOutput
from ..schedule import retrieve_timesteps
from ..upscaling import UpscalingPipeline
from .base import StableDiffusionUncheckedBase

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

NOISE_LEVEL_SIZE = 128
"""Size of the embedding of the small latents' noise level, which is 0: half ones (its cosines), half zeros (its sines)."""


class StableDiffusionLatentUpscalePipeline(UpscalingPipeline, StableDiffusionUncheckedBase):
    """Draws images that are latents, or small images, enlarged to twice their sides: the UNet is shown those beside the latents.

    Args:
        unet: a denoiser of latents and, in its last channel, a variance that is not used. `timestep_cond` is the prompt's pooled
            embedding after `NOISE_LEVEL_SIZE` numbers.
        scheduler: `EulerDiscreteScheduler`.

    The other components are `StableDiffusionBase`'s.
    """

    model_cpu_offload_seq = "text_encoder->unet->vae"

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: "CLIPTokenizer",
        unet: UNet2DConditionModel,
        scheduler: EulerDiscreteScheduler,
    ):
        self.register_modules(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler)

    def __call__(
        self,
        prompt: str | list[str] | None = None,
        image: PipelineImageInput = None,
        num_inference_steps: int = 75,
        guidance_scale: float = 9.0,
        negative_prompt: str | list[str] | None = None,
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
    ) -> ImagePipelineOutput | tuple:
        """Draw images; arguments that are not named here are `StableDiffusionPipeline`'s.

        Args:
            prompt: what the images show: one text, or a list.
            image: latents (prompts, 4, height, width) of Stable Diffusion, or images in any of `VaeImageProcessor.preprocess`'s formats,
                one for each prompt.
            guidance_scale: how strictly to follow the prompt; there is guidance above 1, and with 0 an empty text takes its place.
            latents: standard normal numbers to start from, with twice the sides of those to enlarge.
            prompt_embeds: embeddings instead of a prompt, (prompts, tokens, size); see `encode_prompt`.
            negative_prompt_embeds: embeddings instead of a negative prompt.
            pooled_prompt_embeds: (prompts, size); needed with `prompt_embeds`.
            negative_pooled_prompt_embeds: needed with `negative_prompt_embeds`.
            callback: called as `callback(step, timestep, latents)` when the progress bar goes on.
            callback_steps: at every how many steps.

        Raises:
            ConfigError: arguments that do not fit together (see `check_inputs`), or a UNet of other channels than latents and image have.
        """
        self._begin(guidance_scale, None, None, None, [])
        self.check_inputs(
            prompt, image, callback_steps, negative_prompt, prompt_embeds, negative_prompt_embeds, pooled_prompt_embeds,
            negative_pooled_prompt_embeds,
        )  # fmt: skip
        check_output_type(output_type)
        if guidance_scale == 0 and prompt is not None:
            prompt = [""] if isinstance(prompt, str) else [""] * len(prompt)

        embeds, negative, pooled, negative_pooled = self.encode_prompt(
            prompt, self.device, self.do_classifier_free_guidance, negative_prompt, prompt_embeds, negative_prompt_embeds,
            pooled_prompt_embeds, negative_pooled_prompt_embeds,
        )  # fmt: skip
        images, dtype = embeds.shape[0], embeds.dtype
        embeds, pooled = self._guided_batch(embeds, negative), self._guided_batch(pooled, negative_pooled)
        level = (F.ones((pooled.shape[0], NOISE_LEVEL_SIZE // 2), dtype), F.zeros((pooled.shape[0], NOISE_LEVEL_SIZE // 2), dtype))
        shown = self._encode(self.image_processor.preprocess(image).astype(dtype), generator).astype(dtype)
        self._check_shown(shown, "upscaler")
        shown = F.interpolate(self._guided_batch(shown, shown), scale_factor=2)
        timesteps, num_inference_steps = retrieve_timesteps(self.scheduler, num_inference_steps)
        tensors = {"prompt_embeds": embeds, "timestep_cond": F.cat((*level, pooled.astype(dtype)), 1)}
        tensors["latents"] = self.prepare_latents(
            images, self.vae.config.latent_channels, *shown.shape[2:], dtype, self.device, generator, latents
        )
        latents = denoise(
            self, timesteps, num_inference_steps, tensors, self._preconditioned(shown), {}, callback=callback,
            callback_steps=callback_steps,
        )  # fmt: skip
        return self._finish(*self._decode(latents, output_type, dtype, None), return_dict)

    def _preconditioned(self, shown: Tensor) -> Predict:
        """The prediction of a step, for `denoise`: latents / (sigma^2 + 1) + the UNet's output * sigma / sqrt(sigma^2 + 1), guided
        (arXiv:2206.00364, table 1, with a data deviation of 1; the UNet's timestep is log(sigma) / 4)."""

        def predict(latents: Tensor, t: float, tensors: dict[str, Any]) -> Tensor:
            sigma = float(self.scheduler.sigmas[tensors["step"]])
            sample = self._guided_batch(latents, latents)
            output = self.unet(
                F.cat((self.scheduler.scale_model_input(sample, t), shown), 1), math.log(sigma) * 0.25,
                encoder_hidden_states=tensors["prompt_embeds"], timestep_cond=tensors["timestep_cond"], return_dict=False,
            )[0][:, :-1]  # fmt: skip
            denoised = sample * (1 / (sigma**2 + 1)) + output * (sigma / math.sqrt(sigma**2 + 1))
            return self._guide(denoised, t)

        return predict

    @property
    def do_classifier_free_guidance(self) -> bool:
        return self.guidance_scale > 1

    def encode_prompt(
        self,
        prompt: str | list[str] | None,
        device: Any,
        do_classifier_free_guidance: bool,
        negative_prompt: str | list[str] | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        """Embeddings of the prompts and negative prompts before the text encoder's final norm, then pooled ones after it; see
        `clip_prompts.embed_prompts_and_pool`. `device` is not used.

        Raises:
            ConfigError: another number of negative prompts than of prompts.
            TypeError: prompt and negative prompt are not both strings or both lists.
        """
        if prompt_embeds is None or pooled_prompt_embeds is None:
            texts = [prompt] if isinstance(prompt, str) else prompt
            prompt_embeds, pooled_prompt_embeds = embed_prompts_and_pool(self.text_encoder, self.tokenizer, texts)
        if do_classifier_free_guidance and (negative_prompt_embeds is None or negative_pooled_prompt_embeds is None):
            texts = negative_prompts(prompt, negative_prompt, prompt_embeds.shape[0])
            negative_prompt_embeds, negative_pooled_prompt_embeds = embed_prompts_and_pool(self.text_encoder, self.tokenizer, texts)
        return prompt_embeds, negative_prompt_embeds, pooled_prompt_embeds, negative_pooled_prompt_embeds

    def check_inputs(
        self,
        prompt: Any,
        image: Any,
        callback_steps: int,
        negative_prompt: Any = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
    ) -> None:
        """Check the arguments of `__call__`.

        Raises:
            ConfigError: no images or not one for each prompt, both or neither of a prompt and its embeddings, a prompt of another type, or
                embeddings of different shapes or without pooled ones.
        """
        self._check_prompts(prompt, None, negative_prompt, prompt_embeds, negative_prompt_embeds, None, None, None)
        check_pooled("", prompt_embeds, pooled_prompt_embeds)
        check_pooled("negative_", negative_prompt_embeds, negative_pooled_prompt_embeds)
        self._check_small_images(image, prompt, prompt_embeds)
        check_callback_steps(callback_steps)
